"""Walk through the Huffman codes of a sequential JPEG; compiled at the first use."""

from stillrobust.corruptions.kernels.jit import kernel
from stillrobust.samples import Array


@kernel
def count_whole_units(data: Array, bits: int, direct: Array, other: Array, units: int) -> int:
    """Walk through Huffman codes and count the coded units that are whole.

    Args:
        data: uint8 (N + 8,), scan data without stuffed zeros, with eight bytes of padding.
        bits: 8 * N.
        direct: int32 (blocks of a unit, 65536), tables of DC coefficients.
        other: The same for AC coefficients.
        units: Number of units to find.
    """
    place = 0
    for unit in range(units):
        for block in range(len(direct)):
            coefficient = 0
            while coefficient < 64:
                if place >= bits:
                    return unit
                begin = place >> 3
                word = (data[begin] << 16) | (data[begin + 1] << 8) | data[begin + 2]
                code = (word >> (8 - (place & 7))) & 0xFFFF
                entry = direct[block, code] if coefficient == 0 else other[block, code]
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
