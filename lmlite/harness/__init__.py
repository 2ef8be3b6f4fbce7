"""lmlite's models in lm-evaluation-harness, without torch:

    python -m lmlite.harness --model lmlite --model_args source=package:smollm2-135m-instruct \\
        --tasks lambada_openai

The command takes all flags of `lm_eval`. Plain `lm_eval` of version 0.4.13 knows no models but its
own: it reads no entry points (the group `lm_eval.models` that setup.py fills is for versions that
will) and has no flag that imports a module. Needs the extra `harness`.
"""
