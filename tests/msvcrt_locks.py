"""Windows' locks of bytes, as far as one process can tell."""

import os
from contextlib import suppress
from types import ModuleType


class Msvcrt(ModuleType):
    """Locks the byte at which a file is read or written next, for one open file."""

    LK_NBLCK = 2

    def __init__(self) -> None:
        super().__init__("msvcrt")
        self.held: dict[tuple[int, int], int] = {}

    def locking(self, descriptor: int, mode: int, nbytes: int) -> None:
        key = os.fstat(descriptor).st_ino, os.lseek(descriptor, 0, os.SEEK_CUR)
        holder = self.held.setdefault(key, descriptor)
        is_free = True
        with suppress(OSError):  # of a holder that has been closed, which releases its lock
            if holder != descriptor and os.fstat(holder).st_ino == key[0]:
                is_free = False
        if not is_free:
            raise PermissionError(13, "Permission denied")
        self.held[key] = descriptor
