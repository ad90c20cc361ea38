"""gymnasium-robotics' multi-agent MuJoCo."""

import importlib
import os
import sys
import tempfile

from .parallel import Parallel

SEGMENTED = {
    "ManySegmentSwimmer": ("many_segment_swimmer", "Swimmer-v5"),
    "ManySegmentAnt": ("many_segment_ant", "Ant-v5"),
}


class MaMujoco(Parallel):
    """gymnasium-robotics' mamujoco_v1."""

    global_random = False

    def __init__(self, scenario, agent_conf, agent_obsk=1, max_steps=None, draw=False):
        import mujoco

        # a time limit and pictures, if they are wanted
        mujoco.set_mju_user_warning(_warn)
        kwargs = {"scenario": scenario, "agent_conf": agent_conf, "agent_obsk": agent_obsk}
        if max_steps:
            kwargs["max_episode_steps"] = max_steps
        if draw:
            kwargs["render_mode"] = "rgb_array"
        if scenario in SEGMENTED:
            kwargs["gym_env"] = segmented(scenario, agent_conf, max_steps)
        super().__init__(
            "gymnasium_robotics:mamujoco_v1.parallel_env",
            kwargs,
            max_steps,
            reward="common",
            draw=draw,
        )

    def render(self):
        """See `hosted.slots`."""
        if not os.environ.get("DISPLAY"):
            os.environ.setdefault("MUJOCO_GL", "egl")
        try:
            return self.env.render()
        except Exception as error:
            raise RuntimeError(
                "MuJoCo cannot draw here: without a display it needs EGL or OSMesa. Install "
                "libegl1 and set MUJOCO_GL=egl, or libosmesa6 and MUJOCO_GL=osmesa, before the "
                f"start ({type(error).__name__}: {error})"
            ) from error


def segmented(scenario, agent_conf, max_steps):
    """A robot of many segments. Its description is written to a place of our own.

    code: the package writes it among its own files, under one name for all, where workers would
    delete each other's.
    """
    import gymnasium

    module, base = SEGMENTED[scenario]
    writer = importlib.import_module(f"gymnasium_robotics.envs.multiagent_mujoco.{module}")
    agents, each = agent_conf.split("x")
    options = {"max_episode_steps": max_steps} if max_steps else {}
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "robot.xml")
        writer.gen_asset(n_segs=int(agents) * int(each), asset_path=path)
        return gymnasium.make(base, xml_file=path, render_mode="rgb_array", **options)


def _warn(text):
    """MuJoCo's warnings on stderr, but that of an old file format.

    By itself it also writes a file where we are.
    """
    if "is deprecated" not in text:
        print(f"mujoco: {text}", file=sys.stderr)
