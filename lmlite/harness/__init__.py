"""lmlite's models in lm-evaluation-harness: `python -m lmlite.harness --model lmlite ...`.

The command takes all flags of `lm_eval`. Versions of the harness that look for models in the
entry-point group `lm_eval.models` know the name themselves. Needs the extra `harness`, no torch.
"""
