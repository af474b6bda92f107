"""A trace of a few calls appears where it is said to be."""

import jax
import jax.numpy as jnp

from salmu_jax.training.profile import Profile


def test_a_trace_of_the_calls_after_compilation_is_written(tmp_path, capsys):
    profile = Profile(tmp_path / "profile", skip=1, count=2)
    call = jax.jit(lambda x: x @ x)
    for index in range(5):
        call(jnp.ones((8, 8))).block_until_ready()
        assert (tmp_path / "profile").exists() == (index > 0)
        profile.call_done()
    profile.close()
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    assert capsys.readouterr().out == f"profile: a trace of 2 calls is in {tmp_path / 'profile'}\n"


def test_a_shorter_run_ends_its_trace_and_one_shorter_still_has_none(tmp_path, capsys):
    profile = Profile(tmp_path / "short", skip=1, count=100)
    profile.call_done()
    profile.call_done()
    profile.close()
    assert list((tmp_path / "short").rglob("*.xplane.pb"))
    assert "a trace of 1 calls" in capsys.readouterr().out
    Profile(tmp_path / "none").close()
    assert not (tmp_path / "none").exists()
