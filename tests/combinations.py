"""Every algorithm by every set of modifiers, in two small environments: what tables of tests are made of.

`two_step` has a common reward; `fading` has episodes of unequal length, agents that die, two types, actions that are
not available, and a reward per agent. An algorithm of continuous actions plays both with the parts of an interval as
actions, and one that needs a common reward plays `fading` for the sum.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp

from jaxshare import compatibility, registry
from jaxshare.envs.matrix import environment as matrix
from jaxshare.learners.learner import offers
from jaxshare.settings.records import RunConfig
from jaxshare.settings.run_parts import ReplayConfig
from jaxshare.training.counting import start_clock
from jaxshare.training.program import Program
from jaxshare.types import Box, Discrete, Env, EnvSpec, RefusedError, TimeStep

FAST = {"xla_backend_optimization_level": 0}  # compiling is what tests wait for
RUN = RunConfig(num_envs=4, batch_size=4, total_env_steps=64, replay=ReplayConfig(capacity=8))
MODIFIERS = [(), *((name,) for name in registry.modules("modifiers"))]
ROWS = list(itertools.product(registry.modules("algo"), MODIFIERS))
PERSONAL = {"a_pps", "rs_pps", "pp_pps"}  # modifiers that need algo.share_params=none; one piece of code


def fading():
    """Three agents, two types; each lives for a random time, and the episode ends with agent 0 or after four steps."""
    spec = EnvSpec(
        name="fading", num_agents=3, obs_dim=2, state_dim=3, action=Discrete(3), episode_limit=4, groups=(0, 0, 1),
        group_names=("runner", "healer"), common_reward=False,
    )  # fmt: skip

    def show(state, reward):
        time, life = state
        alive = time < life
        avail = jnp.stack([~alive, alive, alive & (jnp.arange(3) > 0)], axis=1)
        obs = jnp.stack([life.astype(jnp.float32), jnp.full(3, time, jnp.float32)], axis=1) * alive[:, None]
        ended = ~alive[0]
        return TimeStep(
            obs=obs, state=life.astype(jnp.float32), avail=avail, alive=alive, reward=reward,
            terminated=ended, truncated=~ended & (time >= 4), info={"won": (ended & alive[1]).astype(jnp.float32)},
        )  # fmt: skip

    def reset(key):
        state = (jnp.int32(0), jax.random.randint(key, (3,), 1, 7))
        return state, show(state, jnp.zeros(3))

    def step(state, action, key):
        time, life = state
        reward = (action == jnp.array([1, 2, 2])) * (time < life)
        state = (time + 1, life)
        return state, show(state, reward.astype(jnp.float32))

    return Env(spec, reset, step)


def continuous(env):
    """The same task with one number per action: A equal parts of [-1, 1] stand for the A choices, all available."""
    choices = env.spec.action.num_actions
    spec = dataclasses.replace(env.spec, action=Box(1, (-1.0,), (1.0,)))

    def hide(played):
        return played[0], played[1].replace(avail=played[1].avail[:, :0])

    def step(state, action, key):
        choice = jnp.floor((action[:, 0] + 1.0) / 2.0 * choices).astype(jnp.int32)
        return hide(env.step(state, jnp.clip(choice, 0, choices - 1), key))

    return Env(spec, lambda key: hide(env.reset(key)), step)


@functools.cache
def takes_choices(algo):
    return compatibility.refusal(algo, (), Discrete(3)) is None


def together(env):
    """The same task for the sum of the agents' rewards."""

    def add(played):
        state, seen = played
        return state, seen.replace(reward=jnp.broadcast_to(seen.reward.sum(), seen.reward.shape))

    spec = dataclasses.replace(env.spec, common_reward=True)
    return Env(spec, lambda key: add(env.reset(key)), lambda *args: add(env.step(*args)))


@functools.cache
def needs_a_common_reward(algo):
    """Whether it is refused a reward per agent, and nothing else."""
    env = fading() if takes_choices(algo) else continuous(fading())
    specs = env.spec, together(env).spec
    return [alone is None for alone in (why_not(algo, spec) for spec in specs)] == [False, True]


def why_not(algo, spec):
    module = registry.get("algo", algo)
    try:
        module.make(module.Config(), spec)
    except RefusedError as error:
        return error
    return None


ENVS = {"two_step": (lambda: matrix.make(matrix.Config(game="two_step")), "all"), "fading": (fading, "none")}
SMALL = {
    "hidden_dim": 4, "embed_dim": 4, "hypernet_dim": 4, "cem_samples": 4, "cem_elites": 2, "cem_rounds": 1,
    "target_update_period": 3, "stage1_updates": 1, "capacity": RUN.num_envs, "period": 2, "solo_episodes": 2,
}  # fmt: skip


def suited(algo, env):
    """The environment with actions of the algorithm's kind, and with a reward that it can learn from."""
    env = env if takes_choices(algo) else continuous(env)
    return together(env) if not env.spec.common_reward and needs_a_common_reward(algo) else env


def parts_of(algo, modifiers, spec, share):
    """One combination, with networks as small and periods as short as they get."""
    module = registry.get("algo", algo)
    parts = module.make(small(module.Config, share_params=share), spec)
    for name in modifiers:
        modifier = registry.get("modifiers", name)
        parts = modifier.make(small(modifier.Config), parts)
    return parts


def small(config, **settings):
    """A record of settings with those of SMALL that it has, and no more minibatches than there are streams."""
    fields = config.__dataclass_fields__
    sizes = {name: value for name, value in SMALL.items() if name in fields}
    if "minibatches" in fields and fields["minibatches"].default > RUN.num_envs:
        sizes["minibatches"] = RUN.num_envs
    return config(**sizes, **settings)


def program(algo, modifiers, env, share):
    """The combination in a suited environment."""
    env = suited(algo, env)
    return Program(env, parts_of(algo, modifiers, env.spec, share).assemble(), RUN)


@functools.cache
def offered(algo):
    """What its learner offers to modifiers."""
    return offers(parts_of(algo, (), suited(algo, fading()).spec, "all"))


@functools.cache
def takes_differ(algo):
    """Whether DIFFER may replace its loss: there is a mixer, and the loss is not its own."""
    learner = parts_of(algo, (), suited(algo, fading()).spec, "all")
    owned = "own_loss" in offers(learner) and "loss" not in learner.yields
    return "mixer" in offers(learner) and not owned and not learner.steps[learner.main].fixed


# combinations that cannot work
REFUSED = {row for row in ROWS if "differ" in row[1] and not takes_differ(row[0])}
REFUSED |= {row for row in ROWS if "cql" in row[1] and "action_critics" not in offered(row[0])}
REFUSED |= {row for row in ROWS if "standardise" in row[1] and row[0] == "sit"}  # by its default lift_rewards


@functools.cache
def collected(algo, env):
    """What iql collects before its first update, in a replay, for those that learn from a data set."""
    task = suited(algo, ENVS[env][0]())
    made = Program(task, parts_of("iql", (), task.spec, "all").assemble(), RUN)
    hparams = {name: jnp.float32(value) for name, value in made.algorithm.hparams.items()}
    start = jax.jit(lambda seed: made.prefill(made.init(seed), hparams, start_clock()), compiler_options=FAST)
    return jax.tree.map(lambda x: x[: RUN.num_envs], start(jnp.int32(0))[0].replay)
