"""Vaults of OG-MARL, version 1.x, read and written with tensorstore and numpy alone.

Source: Formanek et al. 2023 (Off-the-Grid MARL) and flashbax 0.1.3 (Toledo et al. 2023), whose
`Vault` writes them: a folder `<name>.vlt/<uid>` with metadata.json (version, shapes and dtypes of a
tree of arrays) and one OCDBT store, in which each leaf is a zarr array [1, 10^13, ...] at its
dotted path with a dot at the end ("infos.legals."); the rows in use are the first `vault_index`.
Rows are steps, episodes one after the other: observations [1, M, N, O], actions [1, M, N(, U)],
rewards, terminals and truncations [1, M, N], infos.state [1, M, G], infos.legals [1, M, N, A].

Reading. An episode ends where every agent is terminated or truncated (older files have no
truncations). Rows after the last end are dropped; whether the first rows are the rest of an episode
cannot be seen, hence `drop_first`. An agent that ends before its team is dead from then on. Without
infos.state the state is all observations side by side; without infos.legals every action up to the
greatest one in the file is available.
The observation after the last step is not stored. After a true end nothing is learned from it: the
last one is repeated. ours: after a cut (truncated, not terminated) the last step cannot be
bootstrapped from, and gets mask 0 (last_step="mask"): its observation is the successor of the step
before, which is marked truncated in its place, so that every target uses what was seen and no loss
needs a rule of its own. The last reward is lost to learning, and the card says so; its returns are
those of the whole episodes. last_step="keep" keeps the step and repeats the observation, for what
never bootstraps (cloning, reward decomposition). code: OG-MARL bootstraps from the first row of the
episode that follows. Files whose flags are 0 throughout (OMAR's MPE) need `episode_length`: an
episode is cut after so many rows, counted from the last end. Columns that are infinite throughout
are padding (see `padding`).

Damage. Chunks are compressed by gzip, which has a checksum, and the store's nodes have one; what an
array says of itself has none, so it is compared with metadata.json and with the chunks that are
there. The vaults written here have checksums of all their files in metadata.json
("jaxshare_files"), and of metadata.json itself ("jaxshare_sha256").

Writing. Terminals and truncations are copies for every agent. Deaths, levels, policies and
components go into leaves of their own below infos, if there are any, and the card into
metadata.json; others ignore them. The observation after the last step is lost, as the format has
it.
"""

from jaxshare.data.vault.metadata import METADATA, UNFINISHED
from jaxshare.data.vault.stored import Stored, open
from jaxshare.data.vault.writing import write

__all__ = ["METADATA", "UNFINISHED", "Stored", "open", "write"]
