"""What to boot: kernel, initial RAM disk, command line (api.md §3.5)."""

import os
from typing import Final

from hibana.config.host_file import open_host_file
from hibana.errors import CmdlineCapacity, HostFileError, InitrdFileError, InvalidCmdline, KernelFileError
from hibana.serde.shapes import Strict

DEFAULT_BOOT_ARGS: Final = (
    "reboot=k panic=1 nomodule 8250.nr_uarts=0 i8042.noaux i8042.nomux i8042.dumbkbd swiotlb=noforce"
)
CMDLINE_MAX_SIZE: Final = 2048
"""In bytes, with the final NUL."""


class BootSourceConfig(Strict):
    kernel_image_path: str
    initrd_path: str | None = None
    boot_args: str | None = None


class BootSource:
    """A boot source whose files are open; their contents are looked at when the microVM starts."""

    def __init__(self, config: BootSourceConfig) -> None:
        """Open the files, then check the command line. Raises KernelFileError, InitrdFileError, InvalidCmdline."""
        self.config = config
        self.boot_args = DEFAULT_BOOT_ARGS if config.boot_args is None else config.boot_args
        self.initrd_fd: int | None = None
        try:
            self.kernel_fd = open_host_file(config.kernel_image_path, os.O_RDONLY)
        except HostFileError as error:
            raise KernelFileError(cause=error) from error
        try:
            if config.initrd_path is not None:
                self.initrd_fd = open_host_file(config.initrd_path, os.O_RDONLY)
            if len(self.boot_args.encode()) >= CMDLINE_MAX_SIZE:
                raise InvalidCmdline(cause=CmdlineCapacity())
        except HostFileError as error:
            self.close()
            raise InitrdFileError(cause=error) from error
        except InvalidCmdline:
            self.close()
            raise

    def close(self) -> None:
        """Close the files."""
        os.close(self.kernel_fd)
        if self.initrd_fd is not None:
            os.close(self.initrd_fd)
