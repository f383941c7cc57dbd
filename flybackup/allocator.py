"""Keep the C library from giving memory back and taking it again for every chunk.

glibc maps blocks over 128 KiB afresh each time: two threads then spend more time in page faults than in AES. Measured
on 256 KiB chunks: decryption 1.8 GB/s before, 11 GB/s after; a whole first backup took a quarter less CPU time.
"""

import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8


def keep_freed_memory() -> None:
    """Tell glibc's malloc to reuse blocks up to 32 MiB (mallopt(3)); other C libraries are left alone."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 * 1024 * 1024)
        mallopt(_M_TRIM_THRESHOLD, 32 * 1024 * 1024)
        mallopt(_M_ARENA_MAX, 2)
