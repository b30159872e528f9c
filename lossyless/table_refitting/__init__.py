"""CDF tables refitted to a data set, and their compact description: `adapt=True` of files.

Each column of symbols keeps its base table or gets another one, by minimum description length
(Rissanen 1978): whichever gives the fewer bits for symbols and description together. Tables are
made of integers from a description, alike on every machine.

Each module builds on those above it:

    counting     SymbolCounts
    choices      what becomes of each column, and the tables that follow
    description  choices as bytes, in the header of a file
    fitting      refit: the choices that are shortest
"""

from lossyless.table_refitting.choices import RefittedTables
from lossyless.table_refitting.counting import SymbolCounts
from lossyless.table_refitting.description import decode_tables
from lossyless.table_refitting.fitting import refit

__all__ = ["RefittedTables", "SymbolCounts", "decode_tables", "refit"]
