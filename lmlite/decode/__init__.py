"""Text generation: prompts in, continuations out.

    generate(lm, ["The capital of France is"], max_new_tokens=8)[0].text

`loop` runs the model, one compiled program for the prompts and one for all tokens after them;
`shared` reads once what prompts begin with alike; `sampling` and `beams` choose tokens; `prompts`
and `transcript` stand between text and ids.
"""

from lmlite.decode.generation import Generation, generate

__all__ = ["Generation", "generate"]
