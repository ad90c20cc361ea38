"""Shared settings of the test-suite: hostile flags, a compilation cache, two CPU devices."""

import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
CACHE = pathlib.Path(__file__).parent.parent / ".cache" / "jax"

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_num_cpu_devices", 2)
jax.devices()  # JAX starts here, with two devices: later a run of one seed would ask for one, for all tests after it
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
jax.config.update("jax_numpy_rank_promotion", "raise")
# compiling is most of the suite's time: a quarter less without most optimisations
jax.config.update("jax_disable_most_optimizations", True)


# Measured to take long, while others show the same: slow, so that the rest stays under ten minutes.
DEAR = """
identities/test_ppo_identity.py::test_an_update_is_epochs_of_minibatches_of_streams_with_a_falling_learning_rate
identities/test_ppo_identity.py::test_a_continuous_action_is_judged_as_it_was_drawn
identities/test_deterministic.py::test_all_windows_of_one_step_are_the_whole_episodes
identities/test_actor_critic.py::test_whole_episodes_and_a_stream_of_them_give_the_same_gradients[shared experience]
identities/test_pps_actor_critic.py::test_both_networks_or_one
identities/test_sit.py::test_each_stage_learns_its_own
identities/test_sit.py::test_the_ensemble_and_the_graph_do_not_care_for_the_order_of_agents
identities/test_central.py::test_maa2c_leaves_the_best_joint_action
identities/test_central.py::test_coma_targets_of_n_steps
identities/test_offline.py::test_padding_changes_nothing[icq]
models/test_streams.py::test_layers[shape1-layers1]
ops/test_gumbel.py::test_the_largest_is_distributed_as_the_policy_at_any_temperature
ops/test_moments.py::test_many_batches_against_a_slow_count
test_host_run.py::test_two_seeds_on_lbforaging_do_not_hang_and_are_the_seeds_alone
test_host_run.py::test_a_failure_is_reported_after_a_checkpoint_and_the_run_goes_on_exactly
test_host_run.py::test_a_failed_evaluation_is_made_up_for
test_resume.py::test_total_env_steps_may_grow_where_no_schedule_reads_it
test_resume.py::test_signals_save_at_the_next_chunk_boundary[2-5]
learning/test_memory.py::test_a_recurrent_team_remembers
identities/test_matrix_tables.py::test_mg1_vdn_reaches_the_best_sum[climbing]
test_host_run.py::test_evaluation_has_environments_of_its_own_a_few_at_a_time
test_resume.py::test_a_process_stopped_at_any_moment_goes_on_with_the_same_command[2-130]
conformance/test_algorithms.py::test_a_sweep_is_its_points
conformance/test_algorithms.py::test_it_is_traced_once_and_learns_something_finite[roma
conformance/test_algorithms.py::test_it_is_traced_once_and_learns_something_finite[facmac
conformance/test_algorithms.py::test_it_is_traced_once_and_learns_something_finite[maser
conformance/test_algorithms.py::test_it_is_traced_once_and_learns_something_finite[ia2c
conformance/test_algorithms.py::test_it_is_traced_once_and_learns_something_finite[comix
envs/test_jaxmarl_any.py::test_overcooked_is_cut_at_the_limit_and_counts_down_to_it
conformance/test_parts.py::test_relabel_changes_the_batch_and_keeps_statistics
test_collect.py::test_stopped_in_the_middle_nothing_opens_until_the_same_command_gives_the_same_bytes
test_collect.py::test_help_shows_every_setting_and_its_examples_work
test_offline_run.py::test_stopped_and_resumed_it_is_the_same_run[bc-1]
identities/test_cql.py::test_candidates_are_uniform_and_around_this_and_the_next_policy
envs/test_lbf_parity.py::test_starts_have_the_distribution_of_the_original[5x5-8p
conformance/test_algorithms.py::test_it_is_traced_once_and_learns_something_finite[qmix-modifiers7
conformance/test_algorithms.py::test_it_is_traced_once_and_learns_something_finite[qmix-modifiers8
conformance/test_algorithms.py::test_it_is_traced_once_and_learns_something_finite[qplex-modifiers9
conformance/test_algorithms.py::test_it_is_traced_once_and_learns_something_finite[mappo-modifiers3
identities/test_matrix_tables.py::test_mg3_vdn_settles_for_the_safe_outcome_of_climbing
identities/test_matrix_tables.py::test_mg1_vdn_reaches_the_best_sum[linear
conformance/test_algorithms.py::test_it_is_traced_once_and_learns_something_finite[qmix-modifiers6
conformance/test_algorithms.py::test_vmapped_runs_are_the_same_up_to_rounding
identities/test_comix.py::test_padding_changes_nothing[{'recurrent'
envs/test_smax_units.py::test_the_old_rules_are_jaxmarls[2s3z-closest
test_resume.py::test_without_its_replay_a_run_goes_on_inexactly_and_says_so
test_resume.py::test_a_process_stopped_at_any_moment_goes_on_with_the_same_command[9--9]
test_resume.py::test_signals_save_at_the_next_chunk_boundary[15-3]
identities/test_matrix_tables.py::test_mg5_differ_has_the_base_gradients_on_climbing
identities/test_matrix_tables.py::test_mg1_vdn_reaches_the_best_sum[monotonic]
identities/test_matrix_tables.py::test_mg4_differences_of_utilities_on_linear
test_data_settings.py::test_observations_beyond_the_range_of_the_replay_are_named[float16
conformance/test_parts.py::test_modules_train_before_and_after_a_modifier_that_sets_groups[True]
""".strip().splitlines()


def pytest_collection_modifyitems(items):
    """Mark the dear tests."""
    for item in items:
        if any(f"/{name}" in item.nodeid for name in DEAR):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module")
def optimised():
    """As users compile: without optimisations the order of a sum may depend on the number of devices."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
