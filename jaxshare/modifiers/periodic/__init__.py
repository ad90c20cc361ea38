"""What A-PPS, RS-PPS and PP-PPS share: agents that keep their own parameters and average them from
time to time.

Zhang et al. 2024, "PPS-QMIX: Periodically Parameter Sharing for Accelerating Convergence of
Multi-Agent Reinforcement Learning". After every `period`-th update, for every tensor j of the
shared set,

    w_{i,j} <- sum_k w_k w_{k,j}                                                 (secs. 4.1 to 4.3)

with weights w_k of ops/pps.py made from the scores R_k.

The average is a branch on the clock that all runs have in common, so that it is not computed in
between. Scores: `own` are the agents' rewards in the episodes last collected; `solo` are returns of
greedy episodes in which one agent's network plays every agent; `individual` are DIFFER's decomposed
rewards (Hu et al. 2023, eq. 2) on the update's batch.

Of an actor-critic (ours) actors and critics are averaged, or one of them (`networks`), with the
same weights; what all agents have in common already, such as a central critic, stays as it is. A
learner from segments has seen no whole episodes: there `own` scores are rewards summed over the
pieces of streams, which is what the paper's interval says.

Departures. paper, code: the average stands before the gradient step of update 300, ours: after it;
either way before the copy of the targets that falls on the same update. code: in a solo episode all
agents pass through one hidden state, which is not reset; ours: each has its own, new in every
episode, and its own id, and all networks meet the same episodes. code: epsilon-greedy with one coin
for the team, evaluations that write into the replay and other defects of the released file are not
repeated. Table 1's orthogonal first weights are a setting of the learner, `algo.init=orthogonal`.

Where agents read their index, each network trains what it makes of its own agent's index only; an
average divides that by N. In a solo episode a network meets the other indices untrained, unless
`solo_id=network` (ours). With `algo.obs_agent_id=false` a network loses nothing between averages:
to it its index is constant, no more than a bias of its first layer.
"""
