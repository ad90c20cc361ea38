"""Ids of jaxmarl 0.2.0, and what is known of them."""

from __future__ import annotations

IDS = (
    "switch_riddle",
    "hanabi",
    "overcooked",
    "overcooked_v2",
    "coin_game",
    "storm",
    "storm_2p",
    "storm_np",
    "jaxnav",
    "SMAX",
    "HeuristicEnemySMAX",
    "MPE_simple_v3",
    "MPE_simple_tag_v3",
    "MPE_simple_world_comm_v3",
    "MPE_simple_spread_v3",
    "MPE_simple_crypto_v3",
    "MPE_simple_speaker_listener_v4",
    "MPE_simple_push_v3",
    "MPE_simple_adversary_v3",
    "MPE_simple_reference_v3",
    "MPE_simple_facmac_v1",
    "MPE_simple_facmac_3a_v1",
    "MPE_simple_facmac_6a_v1",
    "MPE_simple_facmac_9a_v1",
)
BRAX = ("ant_4x2", "halfcheetah_6x1", "hopper_3x1", "humanoid_9|8", "walker2d_2x3")
ROBOTARIUM = (
    "JaxRobotarium_navigation",
    "JaxRobotarium_discovery",
    "JaxRobotarium_material_transport",
    "JaxRobotarium_warehouse",
    "JaxRobotarium_arctic_transport",
    "JaxRobotarium_foraging",
    "JaxRobotarium_rware",
    "JaxRobotarium_predator_prey",
)
LEARNED = "LearnedPolicyEnemySMAX"
SHARED_REWARD = (
    "switch_riddle",
    "hanabi",
    "overcooked",
    "overcooked_v2",
    "HeuristicEnemySMAX",
    "MPE_simple_v3",
    "MPE_simple_speaker_listener_v4",
    *BRAX,
)
REMEDY = dict.fromkeys(BRAX, " Remedy: pip install 'jaxmarl[mabrax]'") | dict.fromkeys(
    ROBOTARIUM, " Remedy: install the submodules of jaxmarl from a checkout of its source"
)
