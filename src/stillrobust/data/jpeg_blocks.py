"""Walk through the Huffman codes of a sequential JPEG; compiled at the first use."""

from stillrobust.corruptions.kernels.jit import kernel
from stillrobust.samples import Array


@kernel
def count_whole_units(data: Array, bits: int, tables: Array, blocks: Array, units: int) -> int:
    """Walk through Huffman codes and count the coded units that are whole.

    Args:
        data: uint8 (N + 8,), scan data without stuffed zeros, with eight bytes of padding.
        bits: 8 * N.
        tables: uint16 (T, 65536), the next 16 bits -> length of the code times 256 plus symbol.
        blocks: int64 (B, 2), tables of the DC and AC coefficients of each block of a unit.
        units: Number of units to find.
    """
    place = 0
    for unit in range(units):
        for block in range(len(blocks)):
            coefficient = 0
            while coefficient < 64:
                if place >= bits:
                    return unit
                begin = place >> 3
                word = (data[begin] << 16) | (data[begin + 1] << 8) | data[begin + 2]
                code = (word >> (8 - (place & 7))) & 0xFFFF
                entry = int(tables[blocks[block, min(coefficient, 1)], code])
                if entry == 0:  # no such code
                    return unit
                run, size = (entry >> 4) & 15, entry & 15
                place += (entry >> 8) + size
                if coefficient == 0:
                    coefficient = 1
                elif size == 0 and run != 15:
                    coefficient = 64  # end of block
                else:
                    coefficient += run + 1
            if place > bits:
                return unit
    return units
