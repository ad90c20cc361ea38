"""Whether a run of SIT knows which agents played well.

Tian et al. 2023 (SIT, arXiv 2211.15612), Figure 3 and appendix E.4: each agent's decomposed reward
over the first stage, and how the priorities of its trajectories are spread. The paper compares
curves by eye. ours: every trajectory of a data set that `jaxshare.collect` made has the level of
the policy that played it, so that the order can be counted: how often a trajectory of a better
policy has the larger reward, or priority, than one of a random policy (AUROC).
"""
