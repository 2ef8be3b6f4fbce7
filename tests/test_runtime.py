"""Programs are metered: FLOPs of loops are counted by their turns, compilation apart from work."""

import jax
import jax.numpy as jnp

from lmlite.runtime import Meter, Program, stream

PRODUCT = 2 * 8 * 16 * 32


def test_a_loop_counts_every_turn():
    x, w = jnp.ones((8, 16)), jnp.ones((16, 32))
    stacked = jnp.ones((5, 8, 16))
    meter = Meter()
    plain, loop = (
        Program(lambda x, w: x @ w),
        Program(lambda xs, w: jax.lax.map(lambda x: x @ w, xs)),
    )
    one, five = plain.compile(meter, x, w).flops, loop.compile(meter, stacked, w).flops
    assert one == PRODUCT
    assert 5 * PRODUCT <= five <= 5.2 * PRODUCT


def test_nested_loops_multiply():
    w = jnp.ones((16, 32))

    def inner(xs):
        return jax.lax.map(lambda x: x @ w, xs)

    program = Program(lambda xss: jax.lax.map(inner, xss))
    flops = program.compile(Meter(), jnp.ones((3, 5, 8, 16))).flops
    assert 15 * PRODUCT <= flops <= 15.5 * PRODUCT


def test_bytes_are_those_of_operands_and_results():
    meter, program = Meter(), Program(lambda x, w: x @ w)
    for _ in range(3):
        program(meter, jnp.ones((8, 16)), jnp.ones((16, 32)))
    assert meter.bytes == 3 * 4 * (8 * 16 + 16 * 32 + 8 * 32)


def test_one_program_a_shape_and_a_constant():
    meter = Meter()
    program = Program(lambda n, x: x * n, static=1)
    for n, size in ((2, 3), (2, 3), (3, 3), (2, 4)):
        assert program(meter, n, jnp.ones(size)).sum() == n * size
    assert len(program._compiled) == 3 and meter.compile_seconds > 0


def test_streams_differ_by_name_step_and_seed():
    drawn = {
        tuple(jax.random.key_data(stream(*of)).tolist())
        for of in ((0, "init"), (0, "dropout"), (1, "init"), (0, "init", 1))
    }
    assert len(drawn) == 4
    again = jax.random.key_data(stream(0, "init"))
    assert jnp.array_equal(again, jax.random.key_data(stream(0, "init")))
