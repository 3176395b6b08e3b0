from ._reproduce import reproduce as reproduce
from .published import REPRODUCTIONS as REPRODUCTIONS
from .published import DataFile as DataFile
from .published import Published as Published
from .published import Reproduction as Reproduction
from .reproduced import Reproduced as Reproduced
from .reproduced import compare_with_published as compare_with_published
from .reproduced import reproduced_grid as reproduced_grid
