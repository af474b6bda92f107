"""Plans: for the devices that are here, for a TPU that is not, and what is said when a step does not fit."""

import io
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from salmu_jax import cli
from salmu_jax.config import load_config
from salmu_jax.models.build import make_clip
from salmu_jax.runtime.errors import InputError
from salmu_jax.training import chips, plan, plan_report
from salmu_jax.training import mesh as mesh_lib
from salmu_jax.training.flops import train_flops_per_pair
from salmu_jax.training.input_costs import _photograph, input_costs, measure_decoding, vcpus_of
from salmu_jax.training.loss import FORMS, LossConfig, make_loss

TINY = "configs/tiny.py"
V5E = chips.chip_of(type("Device", (), {"device_kind": "TPU v5 lite"}))


@pytest.fixture(scope="module")
def config():
    return load_config(TINY, ["train.batch_size=64"])


def test_the_plan_of_the_local_devices_is_that_of_the_real_step(config, tmp_path, capsys):
    made = plan_report.run(config, "local", pairs=6_400, bytes_per_pair=1_000, output=tmp_path / "plan.json")
    assert (made.chips, made.devices, made.steps) == (8, 8, 400)
    assert made.bytes_to_read == 4 * 6_400 * 1_000
    assert made.memory.fits
    assert made.memory.needed > 3 * 4 * made.parameters  # parameters and two moments, float32, a copy on each device
    clip = make_clip(config)
    at_least = 64 * train_flops_per_pair(clip.config)
    assert at_least < made.model_flops < 2 * at_least  # norms and activations weigh much in so small a model
    assert made.collectives["all-reduce"] >= 2 * 4 * made.parameters * 7 / 8
    assert made.seconds() == {}
    printed = capsys.readouterr().out
    assert "No run was measured" in printed
    assert "not known: no published figures of cpu" in printed
    whole = json.loads((tmp_path / "plan.json").read_text())
    assert whole["steps"] == 400
    assert {"caveat", "versions", "command", "config"} <= whole.keys()


@pytest.mark.slow
def test_remat_costs_flops_and_the_loops_do_not_hide_them(config):
    config = plan.changed(config, {"model.architecture": "ViT-B-32"})  # blocks enough that they are nearly all there is
    full = plan.changed(config, {"model.remat": "full", "model.scan_layers": True})
    plain, remat = plan.unrolled_flops(config), plan.unrolled_flops(full)
    # Two thirds of a forward pass more: nobody needs the result of an MLP's second product again, a third of a block's.
    assert 1.2 * plain < remat < 1.25 * plain


def test_the_roofline_is_the_slowest_of_three(config):
    made = plan.Plan(
        "x", V5E, "TPU v5 lite", 4, 4, {}, 1, plan.Memory(1, 1, 0, 2), 4e12, 8e12, 819e6, 200e6, {}, 10, 640, 1.0
    )
    assert made.seconds() == pytest.approx({"compute": 8e12 / (4 * 197e12), "memory": 1e-3, "interconnect": 1e-3})
    assert made.roofline() == pytest.approx(8e12 / (4 * 197e12))
    text = "\n".join(plan_report.table(config, made, []))
    assert "bound by compute" in text
    assert "MFU at most 50 %" in text


def costs_of(vcpus, **given):
    """A step of 64 pairs and 8 TFLOP on a peak of 100 TFLOP/s: 0.2 s at 40 %, 0.145 s at 55 %."""
    values = {
        "batch": 64,
        "model_flops": 8e12,
        "peak_flops": 1e14,
        "roofline": 0.01,
        "hosts": 2,
        "images_per_vcpu": 20.0,
    }
    return input_costs(**{**values, "vcpus": vcpus, "bytes_per_pair": 1e5, **given})


def test_the_input_is_costed_at_the_speed_of_real_runs():
    costs = costs_of(20)
    assert costs.seconds_per_step == pytest.approx((8 / 40, 8 / 55))
    assert costs.images_per_second == pytest.approx((160, 220))  # 32 pairs of a step are a host's
    assert costs.vcpus_needed == pytest.approx((8, 11))
    assert costs.bytes_per_second == pytest.approx((16e6, 22e6))
    assert costs.seconds_to_first_batch == pytest.approx(32 / (0.8 * 20 * 20))
    assert costs.enough
    assert not costs_of(13).enough  # 11 are needed, and a fifth of them has other work
    assert costs_of(14).enough
    assert costs_of(None).enough is None
    assert costs_of(20, roofline=0.18).seconds_per_step == pytest.approx((0.2, 0.18))  # no faster than its bound
    assert json.loads(json.dumps(costs.to_json()))["enough"] is True


def test_a_host_that_is_too_slow_is_warned_of(config):
    made = plan.Plan(
        "v5e:2x2", V5E, "TPU v5 lite", 4, 4, {}, 1, plan.Memory(1, 1, 0, 2), 4e12, 8e12, 819e6, 200e6, {}, 10, 640, 1.0
    )
    text = "\n".join(plan_report.table(config, made, [], costs_of(10)))
    assert "to be expected 145.5 to 200.0 ms a step" in text
    assert "2 hosts; 160 to 220 images/s to decode, which takes 8 to 11 vCPUs of 10 at 20 images/s each" in text
    assert "16 to 22 MB/s a host" in text
    assert "WARNING" in text
    assert "WARNING" not in "\n".join(plan_report.table(config, made, [], costs_of(20)))
    unknown = "\n".join(plan_report.table(config, made, [], costs_of(None)))
    assert "WARNING" not in unknown
    assert "first batch" not in unknown


def test_decoding_is_measured_on_an_image_like_a_photograph():
    with Image.open(io.BytesIO(_photograph())) as image:
        assert image.size == (512, 384)
        pixels = np.asarray(image, np.float64)
    assert 20 < pixels.std() < 70
    neighbours = np.corrcoef(pixels[:, 1:, 1].ravel(), pixels[:, :-1, 1].ravel())[0, 1]
    assert 0.8 < neighbours < 0.999
    assert 40_000 < len(_photograph()) < 60_000
    assert measure_decoding(224, seconds=0.03) > 0


def test_what_does_not_fit_says_which_changes_would(config, monkeypatch, capsys):
    def compile_step(config, devices, *, fast=False):
        """As if FSDP alone would help, and the compiler gave up on everything else."""
        fits = config.mesh.fsdp == 8
        memory = plan.Memory(2**30 if fits else 2**35, 0, 0, 2**34, fits)
        return memory, "", 1_000, {"data": 8 // config.mesh.fsdp, "fsdp": config.mesh.fsdp, "tensor": 1}

    monkeypatch.setattr(plan, "compile_step", compile_step)
    made = plan_report.run(config, "local", pairs=6_400)
    assert not made.memory.fits
    assert made.seconds() == {}
    printed = capsys.readouterr().out
    assert "memory a chip  32.0 of 16.0 GiB: it does not fit" in printed
    assert "time a step    not known: it does not fit" in printed
    assert "--config.mesh.fsdp=8: fits, 1.0 GiB a chip" in printed
    for change in ("model.remat=full --config.model.scan_layers=True", "train.loss_form=ring", "train.batch_size=32"):
        assert f"--config.{change}: does not fit, 32.0 GiB a chip" in printed


def test_a_compiler_that_runs_out_of_memory_is_understood():
    error = jax.errors.JaxRuntimeError(
        "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 26.60G of 15.75G hbm. Exceeded by 10.85G."
    )
    memory = plan._exhausted(error, 0.0)
    assert not memory.fits
    assert memory.needed == pytest.approx(26.6 * 2**30)
    assert memory.limit == pytest.approx(15.75 * 2**30)
    with pytest.raises(jax.errors.JaxRuntimeError):
        plan._exhausted(jax.errors.JaxRuntimeError("INTERNAL: something else"), 0.0)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--topology", "v5e:3x5x7"], "salmu: --topology: no topology 'v5e:3x5x7'"),
        *((["--topology", "local", "--bytes-per-pair", x], "salmu: --bytes-per-pair: is ") for x in ("0", "-1", "nan")),
        (["--topology", "local", "--images-per-vcpu", "0"], "salmu: --images-per-vcpu: is 0; a number above 0"),
        (["--topology", "local", "--pairs", "3"], "salmu: --pairs: 3 pairs are less than a batch of 16"),
        (["--topology", "local", "--output", TINY], f"salmu: --output {TINY}: is read by this command"),
        (["--topology", "local", "--output", "README.md"], "salmu: --output README.md: is there, and this command did"),
        (
            ["--topology", "local", "--config.mesh.fsdp=3"],
            "salmu: mesh: 8 devices cannot be split into fsdp 3 x tensor 1",
        ),
        (
            ["--topology", "local", "--config.train.loss=x"],
            "salmu: train.loss: unknown loss 'x'; there are infonce, sigmoid",
        ),
    ],
)
def test_bad_input_is_one_line(arguments, line, capsys):
    assert cli.main(["plan", "--config", TINY, *arguments]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(line)
    assert printed.count("\n") == 1


def test_without_libtpu_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "libtpu", None)
    with pytest.raises(InputError, match=r"^--topology: compiling for TPUs needs libtpu; 'pip install jax\[tpu\]'"):
        plan.topology_devices("v5e:16x16")


# With libtpu, which the test requirements bring: a real TPU program.


@pytest.fixture(scope="module")
def on_tpu():
    config = load_config(TINY, ["train.batch_size=64", "model.compute_dtype=bfloat16", "mesh.fsdp=4"])
    return plan.make_plan(config, "v5e:4x4", pairs=64_000, bytes_per_pair=1e3, fast=True)


def test_a_tpu_program_is_compiled_without_a_tpu(on_tpu):
    assert (on_tpu.chips, on_tpu.devices, on_tpu.mesh) == (16, 16, {"data": 4, "fsdp": 4, "tensor": 1})
    assert on_tpu.chip.name == "TPU v5e"
    assert vcpus_of(on_tpu.chip.name, on_tpu.chips // on_tpu.hosts) in (112, 224)
    assert on_tpu.memory.fits
    assert 0 < on_tpu.memory.needed < 2**30
    assert set(on_tpu.seconds()) == {"compute", "memory", "interconnect"}
    assert on_tpu.roofline() > 0


@pytest.mark.parametrize(
    ("topology", "count", "per_chip"), [("v4:2x2x1", 4, 1), ("v3:2x2", 8, 2), ("tpu7x:2x2x1", 8, 2), ("v6e:1x1", 1, 1)]
)
def test_devices_and_chips_of_the_generations(topology, count, per_chip):
    devices = plan.topology_devices(topology)
    assert len(devices) == count
    assert chips.devices_per_chip(devices) == per_chip
    assert chips.chip_of(devices[0]).name.lower().replace(" ", "").endswith(topology.partition(":")[0])
    assert dict(mesh_lib.make_mesh(devices=devices).shape) == {"data": count, "fsdp": 1, "tensor": 1}


@pytest.mark.slow
def test_ring_and_chunked_need_a_third_of_plain_on_a_tpu():
    """The loss alone, 131,072 pairs over 256 chips; the figures of the whole step are in the README."""
    mesh = mesh_lib.make_mesh(devices=plan.topology_devices("v5e:16x16"))
    rows = jax.ShapeDtypeStruct((131_072, 512), "float32", sharding=mesh_lib.batch_sharding(mesh))
    scalars = {"logit_scale": jax.ShapeDtypeStruct((), "float32", sharding=mesh_lib.replicated(mesh))}

    def temporaries(form):
        loss = make_loss(LossConfig(form=form))
        with mesh_lib.use(mesh), plan._compiler_effort(-1.0):
            call = jax.jit(jax.value_and_grad(lambda *inputs: loss(*inputs, None), argnums=(0, 1, 2)))
            return call.lower(rows, rows, scalars).compile().memory_analysis().temp_size_in_bytes

    plain, chunked, ring = map(temporaries, FORMS)
    assert min(chunked, ring) <= plain / 3, (plain, chunked, ring)


def test_two_plans_may_be_made_side_by_side(on_tpu):
    """libtpu locks the machine for the one process that has the TPU: this one has loaded it, another still can."""
    call = "from salmu_jax.training import plan; print(len(plan.topology_devices('v5e:4x4')))"
    assert subprocess.check_output([sys.executable, "-c", call], text=True).split()[-1] == "16"
