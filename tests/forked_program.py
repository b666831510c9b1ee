"""`harness` for the shell scripts of tests, forked by the process at the address HARNESS_LOADED."""

import json
import os
import socket
import struct
import sys

NUMBER = struct.Struct("i")


def closed_streams() -> list[int]:
    """The standard streams that are closed. Their numbers are taken: nothing else gets them."""
    closed = []
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            closed.append(number)
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    return closed


def main() -> None:
    """Ask for the command, with our streams, and end as it does."""
    about = {"closed": closed_streams(), "cwd": os.getcwd(), "env": dict(os.environ)}
    told, tells = os.pipe()
    request = json.dumps({"arguments": sys.argv[1:], **about}).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as way:
        way.connect("\0" + os.environ["HARNESS_LOADED"])
        socket.send_fds(way, [request], [1, 2, tells])
        os.close(tells)
        os.read(told, NUMBER.size)  # its process id
        os._exit(os.waitstatus_to_exitcode(NUMBER.unpack(os.read(told, NUMBER.size))[0]) % 256)


main()
