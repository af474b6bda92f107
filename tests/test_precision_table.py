"""The table of docs/suite.md: means over seeds, shares of Compromised's figures, verdicts with how many seeds have them."""

import json

from benchmarks import precision_table


def group(role, title, values, verdicts=(), variant=""):
    """A group of a leaderboard whose seeds have these values of every column, as keys have them there."""
    mean = sum(values) / len(values)
    figure = {"mean": mean, "low": min(values), "high": max(values)}
    metrics = {key: figure for _, key, _ in precision_table.COLUMNS}
    members = [f"{title}-{seed}" for seed in range(len(values))]
    verdicts = [{"verdict": name, "seeds": seeds} for name, seeds in verdicts]
    return {
        "role": role,
        "title": title,
        "variant": variant,
        "members": members,
        "metrics": metrics,
        "verdicts": verdicts,
    }


def test_rows_are_means_shares_and_verdicts(tmp_path, capsys):
    groups = [
        group("method", "DELETE", [0.1, 0.3], [("ineffective", 2), ("superficial", 1)], "of half"),
        group("compromised", "Compromised", [0.8]),
        group("clean", "Clean", [0.002]),
    ]
    groups[0]["metrics"] = {**groups[0]["metrics"], "Relearn@part": {"mean": None, "low": None, "high": None}}
    path = tmp_path / "leaderboard.json"
    path.write_text(json.dumps({"groups": groups}))
    assert precision_table.main([str(path)]) == 0
    head, _, *rows, _, ranges = capsys.readouterr().out.splitlines()
    found = {row.split("|")[1].strip(): [cell.strip() for cell in row.split("|")[2:-1]] for row in rows}
    assert list(found) == ["Compromised", "Clean", "DELETE of half"]
    titles = [cell.strip() for cell in head.split("|")[2:-1]]
    assert [len(row) for row in found.values()] == 3 * [len(titles)]
    row = dict(zip(titles, found["DELETE of half"], strict=True))
    assert (row["RetFail whole"], row["HI sim"], row["Relearn part"]) == (".2000", "25.0", "")
    assert row["verdict"] == "ineffective, superficial (1 of 2)"
    assert dict(zip(titles, found["Clean"], strict=True))["HA ret"] == "0.2"
    assert "RetFail whole 0.2000 (DELETE of half)" in ranges
    assert "HI sim 25.0000 (DELETE of half)" in ranges
