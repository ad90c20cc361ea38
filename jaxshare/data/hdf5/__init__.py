"""PyMARL's HDF5 files, as ICQ and CFCQL use them, read and written with h5py.

Source: Yang et al. 2021 (ICQ) and Shao et al. 2023 (CFCQL), whose files hold the columns of
PyMARL's episode buffer (Samvelyan et al. 2019), episode first, K = time limit + 1 columns: obs [E,
K, N, O], state [E, K, G], actions [E, K, N, 1] (real numbers: [E, K, N, U]), actions_onehot,
avail_actions [E, K, N, A], reward, terminated, filled [E, K, 1]. An episode of L steps fills L + 1
columns: the last shows what its last action led to.

Reading. The time limit is K - 1, and step t counts if column t + 1 is filled. terminated is a true
end only, so an episode that ends without it was truncated. Every agent has the reward of the team,
or one of its own where reward is [E, K, N] (EPyMARL), and is taken to be alive unless the file says
otherwise. Discrete actions may be stored as real numbers: they are discrete if actions_onehot and
avail_actions are there. Columns that are infinite throughout are padding (see `padding`). Files
that do not show the successor of the last step (terminated in the last filled column) are refused,
for the last step of an episode that was cut could not be told from its successor.

Writing. What stands in the last filled column and is not known (the action, the reward) is an
available action and 0. Deaths, levels, policies and components go into arrays of their own (alive,
level, policy, component), if there are any, and the card into an attribute; others ignore them. A
step that is terminated and truncated is read as terminated only. The format has one reward per
team: data with individual rewards is refused. Arrays and HDF5's own structures have checksums
(fletcher32; version 1.10 of the format), and the card has one beside it. Files of others mostly
have none: flags that are not 0 or 1, and actions that actions_onehot contradicts, are refused, and
other numbers are believed.
"""

from jaxshare.data.hdf5.file import is_hdf5
from jaxshare.data.hdf5.stored import Stored, open
from jaxshare.data.hdf5.writing import write

__all__ = ["Stored", "is_hdf5", "open", "write"]
