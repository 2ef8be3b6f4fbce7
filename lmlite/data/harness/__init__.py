"""Tasks of lm-evaluation-harness: its YAML files as they are, for evaluation and for tuning."""

from lmlite.data.harness.task import load_yaml_task

__all__ = ["load_yaml_task"]
