"""The split of resident memory."""

import mmap
from pathlib import Path

from edge_bench.charged import Watch, charged, peak_resident, split

SMAPS = """\
55d0-55d4 r--p 00000000 08:01 123 /usr/bin/program
Size:                 16 kB
Rss:                  16 kB
Shared_Clean:         12 kB
Private_Dirty:         4 kB
Anonymous:             4 kB
VmFlags: rd mr mw me
7f00-7f10 rw-p 00000000 00:00 0
Rss:                 100 kB
Private_Clean:        40 kB
Private_Dirty:        60 kB
Anonymous:           100 kB
Swap:                  8 kB
7f20-7f30 rw-s 00000000 08:01 99 /data/file
Rss:                  32 kB
Private_Dirty:        20 kB
Private_Clean:        12 kB
Anonymous:             0 kB
"""


def test_every_resident_page_is_of_one_kind() -> None:
    found = split(SMAPS)
    kib = {name: value // 1024 for name, value in vars(found).items()}
    # The 40 kB of anonymous pages that are clean do not hide the 20 kB of a file that are dirty.
    assert kib == {"resident": 148, "anonymous": 104, "dirty": 20, "clean": 24, "swapped": 8}
    assert found.charged == (104 + 20 + 8) * 1024
    assert found.to_json()["charged_bytes"] == found.charged


def test_written_pages_of_a_shared_mapping_are_dirty_and_read_ones_clean(tmp_path: Path) -> None:
    size = 2**23
    path = tmp_path / "file"
    path.write_bytes(bytes(size))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), size) as mapped:
        before = charged()
        sum(mapped[at] for at in range(0, size, 4096))
        read = charged()
        for at in range(0, size, 4096):
            mapped[at] = 1
        written = charged()
    assert read.clean + read.dirty - before.clean - before.dirty > size * 0.8
    assert written.dirty - before.dirty > size * 0.8
    assert peak_resident() > 0.9 * written.resident  # the system counts it a few pages late


def test_a_watch_remembers_what_is_gone() -> None:
    with Watch() as watch:
        before = watch.peak.charged
        gone = bytearray(b"x" * 2**25)
        watch.look()
        del gone
    assert watch.peak.charged - before > 2**24
