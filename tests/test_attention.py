"""Attention: a numpy oracle for the reference, and every other implementation against it.

Tolerances are for float32 on CPU. The Pallas kernels run interpreted; cuDNN cannot run here, so its
arguments are checked through XLA, which takes the same ones. B batch, T query tokens, S key tokens,
P prefix tokens, N heads, K key/value heads, H head size.
"""

import contextlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlite.errors import UserError
from lmlite.models.attention import Prefix, attention, blocks, support
from lmlite.models.attention.inputs import Inputs, Rule
from lmlite.models.tokens import Tokens

B, T, N, H, P = 2, 40, 4, 8, 21
ON_CPU = [name for name, x in support.TABLE.items() if "cpu" in x.platforms]
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """T is three blocks."""
    monkeypatch.setitem(blocks.TILE, "cpu", 1)
    monkeypatch.setattr(blocks, "_SHORTEST", 16)


def normal(*shape):
    seed = sum(shape) + len(shape)
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def padded(first=0, last=T):
    """Two rows, of which the second has tokens in slots first .. last - 1 only."""
    slots = np.arange(T)
    return Tokens.from_mask(jnp.asarray([slots >= 0, (first <= slots) & (slots < last)]))


def packed():
    """Rows of several segments, with padding on both sides of the second row."""
    segments = np.array([[1] * 15 + [2] * 18 + [3] * 7, [0] * 4 + [1] * 9 + [2] * 20 + [0] * 7])
    position = [[i - list(row).index(s) if s else 0 for i, s in enumerate(row)] for row in segments]
    zeros = jnp.zeros((B, T), jnp.int32)
    return Tokens(jnp.asarray(position), jnp.asarray(segments), zeros)


def branched():
    """A trunk of 20 tokens and two branches of 10 that both go on from it."""
    position = jnp.asarray([[*range(20), *range(20, 30), *range(20, 30)]] * B)
    branch = jnp.asarray([[0] * 20 + [1] * 10 + [2] * 10] * B)
    return Tokens(position, jnp.ones_like(position), branch)


def cache():
    """Ten new tokens, and the slots they read: out of order, the last ones empty."""
    order = jnp.asarray(np.random.default_rng(0).permutation(T))[None].repeat(B, 0)
    key = Tokens(order, (order < 35).astype(jnp.int32), jnp.zeros_like(order))
    return jax.tree.map(lambda x: x[:, :10], Tokens(order + 20, key.segment | 1, key.branch)), key


def prefix():
    """P tokens, of which six are padding, for rows that go on from position 15."""
    return Prefix(normal(P, N, H), normal(P, N, H) + 1, jnp.arange(P), jnp.arange(P) < 15)


def after_prefix(tokens):
    return tokens._replace(position=tokens.position + 15)


BASE = dict(query=padded(3, 33), layout="packed")
CASES = {
    "causal": BASE,
    "bidirectional": BASE | dict(causal=False),
    "padding": dict(query=padded(0, 30), layout="padded"),
    "segments": dict(query=packed(), layout="packed"),
    "branches": dict(query=branched(), layout="free"),
    "cross": dict(query=cache()[0], key=cache()[1], layout="free"),
    "window": BASE | dict(window=7),
    "soft_cap": BASE | dict(soft_cap=0.8),
    "bias": BASE | dict(bias=normal(N, T, T)),
    "grouped": BASE | dict(heads=2),
    "prefix": BASE | dict(query=after_prefix(packed()), prefix=prefix()),
    "window both ways": BASE | dict(causal=False, window=7),
    "window of packed": dict(query=packed(), layout="packed", window=6, heads=1),
    "window over prefix": dict(query=after_prefix(padded(0, 30)), prefix=prefix(), window=20),
    "bias a row": BASE | dict(bias=normal(B, N, T, T)),
    "bias a row over prefix": dict(
        query=after_prefix(packed()),
        prefix=jax.tree.map(lambda x: x[:, :2] if x.ndim > 1 else x, prefix()),
        heads=2,
        bias=normal(B, N, T, P + T),
    ),
    "all at once": dict(
        query=after_prefix(branched()),
        prefix=jax.tree.map(lambda x: x[:, :2] if x.ndim > 1 else x, prefix()),
        heads=2,
        window=23,
        soft_cap=0.8,
        bias=normal(1, N, T, T),
    ),
}


def call(case, impl, dtype=jnp.float32):
    """The function of a case's arrays, and the arrays: q, k, v, bias, prefix keys and values."""
    case = dict(case)
    query, heads = case.pop("query"), case.pop("heads", N)
    key, known = case.pop("key", query), case.pop("prefix", None)
    size, slots = query.position.shape[1], key.position.shape[1]
    arrays = dict(q=normal(B, size, N, H), k=normal(B, slots, heads, H))
    arrays |= dict(v=arrays["k"][..., ::-1], bias=case.pop("bias", None))
    arrays |= dict(prefix=None if known is None else known[:2])
    arrays = jax.tree.map(lambda x: x.astype(dtype), arrays)

    def function(arrays):
        a = dict(arrays, prefix=arrays["prefix"] and Prefix(*arrays["prefix"], *known[2:]))
        return attention(query=query, key=key, scale=0.6, impl=impl, **a, **case)

    return function, arrays


def value_and_gradients(case, impl):
    """Output, and the gradients for one random cotangent."""
    function, arrays = call(case, impl)

    @jax.jit
    def both(arrays):
        out, pull = jax.vjp(function, arrays)
        return out, pull(normal(*out.shape))[0]

    return both(arrays)


def assert_close(a, b, tolerance=TOLERANCE):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=tolerance), a, b)


def inputs(case, dtype=jnp.float32):
    """What `attention` would hand to an implementation."""
    seen = {}
    with pytest.MonkeyPatch.context() as patch:
        module = "lmlite.models.attention.pick"
        patch.setattr(module, lambda impl, x: lambda x: seen.setdefault("inputs", x))
        function, arrays = call(case, "auto", dtype)
        function(arrays)
    return seen["inputs"]


def oracle(case):
    """Attention query by query in float64, straight from the rules of visibility."""
    x = jax.tree.map(np.asarray, inputs(case))
    out = np.zeros(x.q.shape)
    for b, t, n in np.ndindex(*x.q.shape[:3]):
        head = n // (N // x.k.shape[2])
        position, segment, branch = (a[b, t] for a in x.query)
        there, its_segment, its_branch = (a[b] for a in x.key)
        sees = (its_segment == segment) & (segment > 0)
        sees &= (its_branch == 0) | (its_branch == branch)
        sees &= (there <= position) | (not x.rule.causal)
        sees &= (abs(position - there) < x.rule.window) | (not x.rule.window)
        scores = cap(x.k[b, sees, head] @ x.q[b, t, n].astype(float), x.rule.soft_cap)
        if x.bias is not None:
            scores += x.bias[b % len(x.bias), n, t, sees]
        values = x.v[b, sees, head]
        if x.prefix is not None and segment:
            sees = x.prefix.valid & (
                (position - x.prefix.position < x.rule.window) | (not x.rule.window)
            )
            known = cap(x.prefix.key[sees, head] @ x.q[b, t, n].astype(float), x.rule.soft_cap)
            if x.prefix_bias is not None:
                known += x.prefix_bias[b % len(x.prefix_bias), n, t, sees]
            scores = np.append(scores, known)
            values = np.append(values, x.prefix.value[sees, head], axis=0)
        if scores.size:
            weights = np.exp(scores - scores.max())
            out[b, t, n] = weights @ values / weights.sum()
    return out


def cap(scores, limit):
    return limit * np.tanh(scores / limit) if limit else scores


def supported(impl, case):
    return support.features(inputs(CASES[case])) <= support.TABLE[impl].features


def pairs(names, want=True):
    """(implementation, case) that the table supports, or refuses."""
    return [(i, c) for i in names for c in CASES if supported(i, c) == want]


def compared():
    """The pairs that run here. Without a prefix, shared_prefix is blockwise itself."""
    plain = {c for c in CASES if "prefix" not in CASES[c]}
    return [
        (i, c)
        for i, c in pairs(ON_CPU)
        if i != "reference" and not (i == "shared_prefix" and c in plain)
    ]


def test_every_feature_has_a_case_that_needs_it():
    for feature in support.FEATURES:
        case = CASES["causal" if feature == "float32" else feature]
        assert feature in support.features(inputs(case)), feature


def test_the_remedy_that_refusals_name_does_everything():
    assert support.TABLE["blockwise"].features == support.FEATURES
    assert set(support.TABLE["blockwise"].platforms) == {"cpu", "gpu", "tpu"}


@pytest.mark.parametrize("case", CASES)
def test_reference_equals_the_oracle(case):
    function, arrays = call(CASES[case], "reference")
    assert_close(function(arrays), oracle(CASES[case]))


@pytest.fixture(scope="module")
def expected():
    """Value and gradients of the reference, computed once a case."""
    known = {}
    return lambda case: known.setdefault(case, value_and_gradients(CASES[case], "reference"))


@pytest.mark.parametrize(("impl", "case"), compared())
def test_value_and_gradients_equal_the_reference(impl, case, expected):
    assert_close(value_and_gradients(CASES[case], impl), expected(case))


@contextlib.contextmanager
def platform(name, **device):
    """A process that believes its device is another one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "default_backend", lambda: name)
        patch.setattr(jax, "local_devices", lambda **_: [types.SimpleNamespace(**device)])
        yield


HOPPER = dict(device_kind="NVIDIA H100 80GB HBM3", compute_capability="9.0")


@pytest.mark.parametrize(("impl", "case"), pairs(["flash"]))
def test_flash_equals_the_reference_in_the_tpu_interpreter(impl, case, expected):
    from jax.experimental.pallas import tpu

    with tpu.force_tpu_interpret_mode(), platform("tpu"):
        assert_close(value_and_gradients(CASES[case], impl), expected(case))


@pytest.mark.parametrize(("impl", "case"), pairs(support.TABLE, want=False))
def test_the_rest_is_refused(impl, case):
    x = inputs(CASES[case])
    with platform(support.TABLE[impl].platforms[0]), pytest.raises(UserError) as refusal:
        support.pick(impl, x)
    message = str(refusal.value)
    missing = support.features(x) - support.TABLE[impl].features
    assert impl in message and "blockwise" in message and all(f in message for f in missing)
    assert "\n" not in message


def test_unknown_names_and_wrong_platforms_are_refused():
    for options, word in (
        (dict(impl="fast"), "'fast'"),
        (dict(layout="sorted"), "'sorted'"),
        (dict(impl="cudnn"), "runs on gpu, not on cpu; use 'blockwise'"),
        (dict(impl="flash"), "runs on tpu, not on cpu; use 'blockwise'"),
    ):
        options = BASE | options
        with pytest.raises(UserError, match=word):
            function, arrays = call(options, options.pop("impl", "auto"))
            function(arrays)


@pytest.mark.parametrize("options", [{}, dict(window=9), dict(causal=False), dict(layout="packed")])
def test_cudnn_is_given_the_right_arguments(options, monkeypatch):
    case = dict(query=padded(0, 30), heads=2, layout="padded") | options
    given = {}

    def by_xla(*args, implementation, **kwargs):
        given.update(kwargs, mask=args[4:], implementation=implementation)
        return original(*args, implementation="xla", **kwargs)

    original = jax.nn.dot_product_attention
    monkeypatch.setattr(jax.nn, "dot_product_attention", by_xla)
    x = inputs(case)
    assert_close(support.TABLE["cudnn"].run(x), support.TABLE["reference"].run(x))
    assert given["implementation"] == "cudnn"
    if case["layout"] == "padded":
        assert given["is_causal"] == case.get("causal", True) and not given["mask"]
        assert given["local_window_size"] == ((8, 0) if "window" in case else None)
    else:
        assert given["mask"][0].shape == (B, 1, T, T)


def test_what_cudnn_refuses_is_one_line():
    x = inputs(dict(query=padded(0, 30), layout="padded"), jnp.bfloat16)
    with pytest.raises(UserError, match="^attention impl 'cudnn': .*; use 'blockwise'$"):
        support.TABLE["cudnn"].run(x)


@pytest.mark.parametrize(
    ("impl", "device", "target"),
    [("splash", "tpu", "tpu"), ("flash", "tpu", "tpu"), ("shared_prefix", "tpu", "tpu")]
    + [("shared_prefix", "gpu", "cuda"), ("triton", "gpu", "cuda")],
)
def test_kernels_lower_for_their_device(impl, device, target):
    case = BASE | (dict(prefix=prefix(), window=30) if impl == "shared_prefix" else {})
    function, arrays = call(case, impl, jnp.bfloat16)

    def loss(arrays):
        return function(arrays).astype(jnp.float32).sum()

    with platform(device, **HOPPER):
        lowered = jax.jit(jax.grad(loss)).trace(arrays).lower(lowering_platforms=(target,))
    kernel = "tpu_custom_call" if target == "tpu" else "__gpu$xla.gpu.triton"
    assert kernel in lowered.as_text()


def shapes(batch, size, dtype=jnp.bfloat16, slots=None, head=64, **rule):
    """Inputs of shapes alone."""
    q, k = (jax.ShapeDtypeStruct((batch, n, 8, head), dtype) for n in (size, slots or size))
    query, key = (Tokens(*[object()] * 3) for _ in range(2))
    rule = Rule(**dict(causal=True, window=0, soft_cap=0.0, layout="free") | rule)
    return Inputs(q, k, k, query, query if slots is None else key, rule)


def test_auto_on_cpu_goes_by_the_size_of_the_scores():
    assert support.choose(shapes(1, 512)) == "reference"
    assert support.choose(shapes(2, 512)) == "blockwise"
    assert support.choose(shapes(64, 1, slots=65536)) == "reference"  # a decoding step


def test_auto_on_accelerators_takes_fused_kernels_where_they_are_allowed():
    with platform("gpu", **HOPPER):
        assert support.choose(shapes(8, 1024, layout="padded")) == "cudnn"
        assert support.choose(shapes(8, 1024, jnp.float32, layout="padded")) == "reference"
        assert support.choose(shapes(8, 1024, layout="padded", soft_cap=5.0)) == "reference"
        assert support.choose(shapes(8, 1024, layout="padded", head=36)) == "reference"
        assert support.choose(shapes(8, 4096)) == "blockwise"
    with platform("gpu", **HOPPER | dict(compute_capability="7.5")):
        assert support.choose(shapes(8, 1024, layout="padded")) == "reference"
    with platform("gpu", device_kind="AMD Instinct MI300X", compute_capability="gfx942"):
        assert support.choose(shapes(8, 1024, layout="padded")) == "reference"
    with platform("tpu"):
        assert support.choose(shapes(8, 1024, layout="packed", window=64)) == "splash"
        assert support.choose(shapes(8, 1024)) == "reference"


@pytest.mark.parametrize("impl", ON_CPU)
def test_nothing_flows_from_the_future(impl):
    function, arrays = call(dict(query=padded(), layout="padded"), impl)
    cut = 17  # inside a block
    gradient = jax.grad(lambda a: jnp.square(function(a)[:, :cut]).sum())(arrays)
    for name in ("k", "v"):
        reached = np.abs(gradient[name]).sum((0, 2, 3)) > 0
        assert reached[: cut - (name == "k")].all() and not reached[cut:].any()


@pytest.mark.parametrize("impl", ["reference", "blockwise", "xla", "splash"])
@pytest.mark.parametrize("causal", [True, False])
def test_a_window_ends_where_it_should(impl, causal):
    function, arrays = call(dict(query=padded(), layout="padded", window=5, causal=causal), impl)
    gradient = jax.grad(lambda a: function(a)[:, 20].sum())(arrays)["v"]
    reached = np.flatnonzero(np.abs(gradient).sum((0, 2, 3)))
    assert list(reached) == list(range(16, 21 if causal else 25))


@pytest.mark.parametrize("impl", [n for n in ON_CPU if "cross" in support.TABLE[n].features])
def test_rows_that_see_nothing_are_zero_and_pass_no_gradient(impl):
    empty = padded()._replace(segment=jnp.zeros((B, T), jnp.int32))
    case = dict(query=padded(), key=empty, layout="free")
    if "prefix" in support.TABLE[impl].features:
        case["prefix"] = prefix()._replace(valid=jnp.zeros(P, bool))
    for leaf in jax.tree.leaves(value_and_gradients(case, impl)):
        assert not leaf.any()  # NaN would count as something


@pytest.mark.parametrize("impl", ["reference", "blockwise", "shared_prefix"])
def test_one_query_against_a_cache_equals_its_row_of_the_whole(impl):
    whole = dict(query=padded(0, 30), layout="free")
    function, arrays = call(whole, "reference")
    want = function(arrays)[:, 25]
    query = jax.tree.map(lambda x: x[:, 25:26], whole["query"])
    one, _ = call(dict(query=query, key=whole["query"], layout="free"), impl)
    assert_close(one(arrays | dict(q=arrays["q"][:, 25:26]))[:, 0], want)


@pytest.mark.parametrize("impl", ["blockwise", "xla", "splash", "triton"])
def test_bfloat16_stays_near_float32(impl):
    case = CASES["segments"]
    got = [f(a) for f, a in (call(case, impl, jnp.bfloat16), call(case, "reference"))]
    assert got[0].dtype == jnp.bfloat16
    assert_close(got[0].astype(jnp.float32), got[1], 0.05)


def test_blockwise_can_be_differentiated_twice():
    def curvature(impl):
        function, arrays = call(CASES["segments"], impl)
        slope = jax.grad(lambda q: jnp.square(function(arrays | dict(q=q))).sum())
        return jax.jit(jax.grad(lambda q: jnp.square(slope(q)).sum()))(arrays["q"])

    got, want = curvature("blockwise"), curvature("reference")
    assert_close(got, want, TOLERANCE * float(jnp.abs(want).max()))


@pytest.mark.parametrize("backward", [False, True])
def test_blockwise_memory_grows_linearly(backward):
    def temporary(impl, size):
        x = shapes(1, size, jnp.float32)
        tokens = Tokens(*[jax.ShapeDtypeStruct((1, size), jnp.int32)] * 3)

        def loss(q, k, v, t):
            return attention(q, k, v, t, t, scale=1.0, impl=impl).sum()

        function = jax.grad(loss, argnums=(0, 1, 2)) if backward else loss
        compiled = jax.jit(function).lower(x.q, x.k, x.v, tokens).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    growth = {i: temporary(i, 4096) / temporary(i, 1024) for i in ("blockwise", "reference")}
    assert growth["blockwise"] < 4.1 and growth["reference"] > 10
