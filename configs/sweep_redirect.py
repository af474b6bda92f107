"""Selects the options of redirection with what a method may read alone; docs/precise_forgetting.md has the outcome."""

from ml_collections import ConfigDict

from configs import mini


def get_config():
    config = mini.get_config()
    config.name = "sweep of redirection"
    config.sweep.name = "redirect"
    config.sweep.budgets = ("own",)
    config.sweep.probes = ("indirect", "relearn")
    config.sweep.methods = ConfigDict(
        {
            "redirect": {
                "options": {
                    "hinge_weight": [80.0, 160.0],
                    "tower_rate": [0.03, 0.1],
                }
            }
        }
    )
    return config
