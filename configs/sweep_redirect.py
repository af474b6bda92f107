"""Selects the options of redirection with what a method may read alone; docs/precise_forgetting.md has the outcome."""

from ml_collections import ConfigDict

from configs import mini


def get_config():
    config = mini.get_config()
    config.name = "sweep of redirection"
    config.sweep.name = "redirect"
    config.sweep.budgets = ("own",)
    config.sweep.at_a_time = 2
    config.sweep.probes = ("indirect", "relearn", "holdout_paraphrase")
    config.evaluate.probe_form = "full"  # an attacker in the training deceives the short form of relearning
    config.sweep.methods = ConfigDict(
        {
            "redirect": {
                "options": {
                    "part_share": [0.5, 0.55, 0.6],
                    "tower_rate": [0.3, 1.0],
                }
            }
        }
    )
    return config
