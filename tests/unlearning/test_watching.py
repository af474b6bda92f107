"""The rank that a run is watched by, against a loop by hand; and logs that leave the cell with the model."""

import types

import numpy as np

from salmu_jax.unlearning import cells, child
from salmu_jax.unlearning.watching import mean_reciprocal_rank


def test_the_mean_reciprocal_rank_of_the_own_caption():
    draw = np.random.default_rng(0)
    similarity = draw.integers(-3, 4, (40, 40)).astype(np.float32) / 4  # many ties
    tokens = draw.integers(0, 25, (40, 1)).astype(np.int32)  # and captions that several images have
    expected = []
    for row in range(40):
        others = [column for column in range(40) if tokens[column] != tokens[row]]
        greater = sum(similarity[row, column] > similarity[row, row] for column in others)
        ties = sum(similarity[row, column] == similarity[row, row] for column in others)
        expected.append(1 / (1 + greater + ties // 2))
    np.testing.assert_allclose(mean_reciprocal_rank(similarity, tokens), np.mean(expected))
    assert mean_reciprocal_rank(np.eye(5, dtype=np.float32), np.arange(5)[:, None]) == 1
    assert mean_reciprocal_rank(-np.eye(5, dtype=np.float32), np.arange(5)[:, None]) == 1 / 5


def test_logs_of_a_method_come_home_without_its_links(tmp_path):
    root = tmp_path / "work"
    workspace = types.SimpleNamespace(
        root=root,
        model_state=lambda name: root / "models" / f"{name}.state",
        logs=lambda name: root / "logs" / name,
    )
    (root / "models").mkdir(parents=True)
    (root / "logs" / "mine").mkdir(parents=True)
    (root / "logs" / "mine" / "events.from-000000000").write_text("of an earlier part of the run")
    cell = tmp_path / ".salmu-0123456789abcdef"
    (cell / child.LOGS / "tensorboard").mkdir(parents=True)
    (cell / child.LOGS / "tensorboard" / "events").write_text("losses")
    (cell / child.LOGS / "link").symlink_to("/etc/hostname")
    cells.close_cell(workspace, "mine", cell)
    logs = {path.relative_to(root / "logs" / "mine").as_posix() for path in (root / "logs" / "mine").rglob("*")}
    assert logs == {"events.from-000000000", "tensorboard", "tensorboard/events"}
    assert not cell.exists()
