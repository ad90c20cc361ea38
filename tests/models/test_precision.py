"""compute.dtype and compute.matmul_precision: what they round and what not, for whom, and that nobody else notices."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from combinations import FAST, RUN, fading, parts_of, suited
from jax.extend.core import jaxprs_in_params

from jaxshare.learners import passes
from jaxshare.models.base import Linear
from jaxshare.models.products import outer_sums, product, products
from jaxshare.models.recurrent import Gates, GRUWeights, gru_unroll
from jaxshare.ops.precision import dot, is_rounded, rounded_to
from jaxshare.run import folder
from jaxshare.run.compute import computed
from jaxshare.run.layout import mesh_of
from jaxshare.settings.run_parts import ComputeConfig
from jaxshare.training.counting import start_clock
from jaxshare.training.program import Program
from jaxshare.training.updating import Learning
from jaxshare.types import RefusedError

BFLOAT16 = ComputeConfig(dtype="bfloat16")
FAMILIES = ("qmix", "iac", "maddpg")  # value, actor-critic, deterministic
TOLERANCE = 0.05  # of the norm of a gradient; bfloat16 has 8 bits, and a gradient is a chain of some ten products
KEY = jax.random.key(0)


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


# ------------------------------------------------------------------------------------------------ products


def test_operands_are_rounded_and_sums_are_not():
    """A thousand ones and a small number: 16-bit sums would lose it, 16-bit operands keep it."""
    x, y = jnp.ones((1, 1001)).at[0, 0].set(2.0**-7), jnp.ones((1001, 1))
    with rounded_to("bfloat16"):
        assert dot(x, y)[0, 0] == 1000 + 2.0**-7
        assert dot(jnp.full((1, 1), 1 + 2.0**-9), jnp.ones((1, 1)))[0, 0] == 1.0
    assert dot(jnp.full((1, 1), 1 + 2.0**-9), jnp.ones((1, 1)))[0, 0] == 1 + 2.0**-9


def dots(jaxpr):
    """(operand types, type of the result) of every product, those inside of loops and calls too."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            found.append((*(str(x.aval.dtype) for x in equation.invars), str(equation.outvars[0].aval.dtype)))
        for inner in jaxprs_in_params(equation.params):
            found += dots(inner)
    return found


def linear(kernel, x):
    return Linear(2).apply({"params": {"kernel": kernel, "bias": jnp.ones(2)}}, x)


def loss_of(function):
    return lambda *args: sum((y**2).sum() for y in jax.tree.leaves(function(*args)))


@pytest.mark.parametrize(
    ("function", "args"),
    [
        (products, (normal(0, 5, 3, 4), [normal(1, 4, 2), normal(2, 4, 6)])),
        (product, (normal(0, 5, 3, 4), normal(1, 4, 2))),
        (outer_sums, (normal(0, 5, 3, 4), [normal(1, 5, 3, 2), normal(2, 5, 3, 6)])),
        (linear, (normal(1, 4, 2), normal(0, 5, 4))),
    ],
)  # fmt: skip
def test_every_product_of_a_layer_is_rounded_in_gradients_too(function, args):
    plain = jax.make_jaxpr(jax.grad(loss_of(function), argnums=(0, 1)))(*args)
    assert set(dots(plain.jaxpr)) == {("float32",) * 3}
    with rounded_to("bfloat16"):
        rounded = jax.make_jaxpr(jax.grad(loss_of(function), argnums=(0, 1)))(*args)
        gradients = jax.grad(loss_of(function), argnums=(0, 1))(*args)
    if function is not outer_sums:  # its gradients are autodiff's: no layer takes them
        assert set(dots(rounded.jaxpr)) == {("bfloat16", "bfloat16", "float32")}
    assert {x.dtype.name for x in jax.tree.leaves(gradients)} == {"float32"}
    near(gradients, jax.grad(loss_of(function), argnums=(0, 1))(*args), 0.02)


def near(one, other, tolerance):
    """Trees whose difference is small beside the norm of the second."""
    difference = jnp.sqrt(sum(((x - y) ** 2).sum() for x, y in zip(*map(jax.tree.leaves, (one, other)), strict=True)))
    norm = jnp.sqrt(sum((x**2).sum() for x in jax.tree.leaves(other)))
    assert norm > 0
    assert 0 < difference < tolerance * norm, (float(difference), float(norm))


def test_a_recurrence_has_rounded_weight_gradients_and_steps_in_float32():
    weights = GRUWeights(*[0.3 * normal(i, 4, 4) for i in range(3)], jnp.ones(4))
    gates = Gates(*[normal(10 + i, 6, 3, 4) for i in range(3)])
    gradient = jax.grad(lambda weights: (gru_unroll(weights, gates, jnp.zeros((3, 4))) ** 2).sum())
    with rounded_to("bfloat16"):
        types = dots(jax.make_jaxpr(gradient)(weights).jaxpr)
        rounded = gradient(weights)
    near(rounded, gradient(weights), 0.02)
    assert types.count(("bfloat16", "bfloat16", "float32")) == 3
    assert set(types) == {("float32",) * 3, ("bfloat16", "bfloat16", "float32")}


def test_over_several_devices_the_same():
    x, y = normal(0, 6, 4, 3), normal(1, 6, 4, 2)

    def sums(x, y):
        with rounded_to("bfloat16"):
            return outer_sums(x, [y])[0]

    with jax.set_mesh(mesh_of(jax.devices()[:2], data=2)):
        spread = jax.make_jaxpr(sums)(x, y)
    assert dots(spread.jaxpr) == [("bfloat16", "bfloat16", "float32")]
    np.testing.assert_allclose(jax.core.eval_jaxpr(spread.jaxpr, spread.consts, x, y)[0], sums(x, y), rtol=1e-5)


# ------------------------------------------------------------------------------------------- families


@functools.cache
def case(algo):
    """(algorithm in float32, learner, what it learns from, context)."""
    env = suited(algo, fading())
    program = Program(env, parts_of(algo, (), env.spec, "all").assemble(), RUN)
    hparams = {name: jnp.float32(value) for name, value in program.algorithm.hparams.items()}

    def collect():
        state, clock = program.init(jnp.int32(3)), start_clock()
        return state.learner, program.explore(state, hparams, clock).batch, program.context(state, hparams, clock)

    return program.algorithm, *jax.jit(collect, compiler_options=FAST)()


@pytest.mark.parametrize("algo", FAMILIES)
def test_gradients_of_a_whole_update(algo, monkeypatch):
    """They differ from those of float32 by less than TOLERANCE, and all that is kept is float32."""
    algorithm, learner, batch, ctx = case(algo)

    # gradients pass by as metrics
    def shown(view, step, grads):
        state, metrics = advance(view, step, grads)
        leaves = jax.tree_util.tree_leaves_with_path(grads)
        return state, {**metrics, **{f"gradient{jax.tree_util.keystr(path)}": x for path, x in leaves}}

    advance = passes.advance
    monkeypatch.setattr(passes, "advance", shown)
    results = {}
    for dtype in ("float32", "bfloat16"):
        update = computed(algorithm, ComputeConfig(dtype=dtype)).update
        results[dtype] = jax.jit(lambda *args, u=update: u(*args), compiler_options=FAST)(learner, batch, ctx, KEY)
    state, metrics = results["bfloat16"]
    assert {jnp.result_type(x).name for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)} == {
        "float32"
    }

    # of the first minibatch: the later ones begin elsewhere
    def gradients(metrics):
        named = {name: jnp.asarray(x) for name, x in metrics.items() if name.startswith("gradient")}
        many = algorithm.updates_per_batch > 1 or algorithm.experience != "replay"
        return {name: x[0] if many else x for name, x in named.items()}

    near(gradients(metrics), gradients(results["float32"][1]), TOLERANCE)


# ------------------------------------------------------------------------------------------- one process


def text_of(*arguments):
    """What a run's update is traced to."""
    program = tiny.build.prepare(tiny.cli.settings([*tiny.PLAIN, *arguments]))
    hparams = {name: jnp.float32(value) for name, value in program.algorithm.hparams.items()}

    def update(seed):
        state, clock = program.init(seed), start_clock()
        ctx = program.context(state, hparams, clock)
        return program.update(state, ctx, None, Learning(state.learner, clock))

    return str(jax.make_jaxpr(update)(jnp.int32(0)))


def test_runs_of_one_process_have_their_own():
    """One after the other, each as if it were alone; float32 is what it is without the setting."""
    texts = [text_of(), text_of("compute.dtype=bfloat16"), text_of()]
    assert ["bf16" in text for text in texts] == [False, True, False]
    assert texts[0] == texts[2]
    assert not is_rounded()


def test_traces_that_jax_has_kept_are_not_taken_for_another_setting():
    multiply = jax.jit(dot)
    x, y = jnp.full((1, 1), 1 + 2.0**-9), jnp.ones((1, 1))
    answers = [multiply(x, y)[0, 0]]
    with rounded_to("bfloat16"):
        answers.append(multiply(x, y)[0, 0])
    answers.append(multiply(x, y)[0, 0])
    assert answers == [1 + 2.0**-9, 1.0, 1 + 2.0**-9]


def test_an_error_leaves_nothing_behind():
    def fail(*args):
        assert is_rounded()
        raise RefusedError("no")

    algorithm = dataclasses.replace(case("qmix")[0], act=fail)
    with pytest.raises(RefusedError):
        computed(algorithm, BFLOAT16).act()
    assert not is_rounded()


def test_precision_is_asked_for_on_accelerators_only(monkeypatch):
    def precision():
        with rounded_to("float32", "tensorfloat32"):
            return str(jax.make_jaxpr(dot)(jnp.ones((2, 2)), jnp.ones((2, 2))))

    assert "HIGH" not in precision()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "HIGH" in precision()


def test_what_is_saved_is_the_same_and_another_setting_does_not_go_on_with_it(tmp_path):
    rounded = tiny.settings(tmp_path, *tiny.PLAIN, "compute.dtype=bfloat16", "resume=auto")
    plain = tiny.settings(tmp_path, *tiny.PLAIN)
    states = [jax.eval_shape(tiny.build.prepare(settings).init, jnp.int32(0)) for settings in (rounded, plain)]
    assert states[0] == states[1]

    # a run that has left something
    folder.write_settings(plain, tmp_path)
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(RefusedError, match=r"compute\.dtype"), folder.in_use(rounded):
        pass
