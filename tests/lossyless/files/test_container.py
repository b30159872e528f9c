"""Files of compressed data sets: exact, atomic, and never silently wrong."""

import os
import resource
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from lossyless.container import ContainerError, ContainerReader, ContainerWriter, format, recovery
from lossyless.container.file import ContainerFile

SETTINGS = {"fingerprint": "ab12", "codec": "H_factorized", "shape": (3, 2)}
CHUNKS = [(b"first payload", 5), (b"", 1), (b"third CHNK INDX", 7)]
GOLDEN = (
    "894c534c4553530a017b000000000000007b22636f646563223a22485f666163746f72697a6564222c2264"
    "74797065223a22666c6f61743332222c2266696e6765727072696e74223a2261623132222c226964223a22"
    "30303030303030303030303030303030222c226d657461223a7b7d2c2273656374696f6e73223a5b5d2c22"
    "7368617065223a5b325d7d382c851205000000000000000000000001000000ee2eeeb243484e4b00000000"
    "00000000000000000500000003000000480d20d3ecc36dc5616263494e445801000000a400000000000000"
    "050000005713d0ccc7000000000000004c534c4553530a89"
)
ROOT = Path(__file__).parents[3]


def write(path: Path, chunks=CHUNKS, **settings) -> bytes:
    with ContainerWriter(path, **(SETTINGS | settings)) as writer:
        for payload, n_examples in chunks:
            writer.add(payload, n_examples)
    return path.read_bytes()


def chunk_spans(path: Path) -> list[slice]:
    """Bytes of each chunk in an intact file."""
    with ContainerReader(path) as reader:
        starts = [chunk.offset for chunk in reader._chunks]
        ends = [
            start + format.CHUNK_HEAD_SIZE + len(payload)
            for start, (payload, _) in zip(starts, reader, strict=True)
        ]
    return [slice(*span) for span in zip(starts, ends, strict=True)]


def read_everything(path: Path, **options) -> dict[int, tuple[bytes, int]]:
    """Chunks by the number under which they were written."""
    with ContainerReader(path, **options) as reader:
        return dict(zip(reader.chunk_numbers, reader, strict=True))


def assert_nothing_wrong(path: Path, data: bytes) -> None:
    """Damaged `data` is refused, and what is recovered from it is what was written."""
    path.write_bytes(data)
    with pytest.raises(ContainerError):
        read_everything(path)
    try:
        recovered = read_everything(path, recover=True)
    except ContainerError:  # a damaged header: nothing can be trusted
        return
    assert recovered.items() <= dict(enumerate(CHUNKS)).items()


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "data.lsl"


@pytest.mark.parametrize("chunks", [[], [(b"", 1)], CHUNKS, [(bytes(range(256)) * 999, 2)] * 20])
def test_round_trip_is_exact(path, chunks):
    meta = {"split": "test", "sizes": [1, 2], "unicode": "é"}
    with ContainerWriter(path, **SETTINGS, dtype="float16", meta=meta) as writer:
        for payload, n_examples in chunks:
            writer.add(payload, n_examples)
    assert writer.n_bytes == path.stat().st_size
    for recover in (False, True):
        with ContainerReader(path, fingerprint="ab12", recover=recover) as reader:
            assert list(reader) == chunks
            assert reader.n_chunks == len(chunks)
            assert reader.n_examples == sum(n for _, n in chunks)
            assert reader.chunk_sizes == [n for _, n in chunks]
            assert reader.damaged == []
            header = reader.header
        assert (header.fingerprint, header.codec) == ("ab12", "H_factorized")
        assert (header.shape, header.dtype, header.meta) == ((3, 2), "float16", meta)


def test_chunks_and_examples_are_found_in_any_order(path):
    write(path)
    with ContainerReader(path) as reader:
        assert [reader.read(i) for i in (2, 0, 1, 0)] == [CHUNKS[i][0] for i in (2, 0, 1, 0)]
        assert (reader.first_examples, reader.n_written) == ([0, 5, 6], 13)
        located = np.transpose(reader.locate(range(13)))
        expected = [[i, k] for i, (_, n_examples) in enumerate(CHUNKS) for k in range(n_examples)]
        assert located.tolist() == expected
        for chunk in (-1, 3):
            with pytest.raises(IndexError, match="of 3"):
                reader.read(chunk)
        for example in (-1, 13):
            with pytest.raises(IndexError, match="of 13"):
                reader.locate([0, example])


def test_processes_that_share_a_reader_do_not_disturb_each_other(path):
    chunks = [(bytes([i]) * 5000, 1) for i in range(50)]
    write(path, chunks)
    with ContainerReader(path) as reader:
        child = os.fork()
        ok = all(reader.read(i % 50) == chunks[i % 50][0] for i in range(2000))
        if child == 0:
            os._exit(0 if ok else 1)
        assert os.waitpid(child, 0)[1] == 0 and ok


def test_bytes_of_a_file_never_change(path, monkeypatch):
    """Golden file: what an earlier version wrote stays readable."""
    monkeypatch.setattr(format.secrets, "token_hex", lambda n: "0" * 2 * n)
    assert write(path, [(b"abc", 5)], shape=(2,)).hex() == GOLDEN


def test_sections_of_the_header_are_bytes(path):
    sections = {"tables": bytes(range(256)), "empty": b"", "more": b"\0"}
    data = write(path, sections=sections)
    with ContainerReader(path) as reader:
        assert reader.header.sections == sections and list(reader) == CHUNKS
    start = data.index(sections["tables"])
    for bit in (8 * start, 8 * (start + 200) + 7):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        for recover in (False, True):
            with pytest.raises(ContainerError, match="the header is damaged"):
                ContainerReader(path, recover=recover)
    with pytest.raises(ContainerError, match="more than 67108864"):
        ContainerWriter(path, **SETTINGS, sections={"large": bytes(1 << 26)})


def test_the_checksum_of_labels_is_kept(path):
    for labels in (format.NO_LABELS, format.UNKNOWN_LABELS, 0, 2**32 - 1):
        with ContainerWriter(path, **SETTINGS) as writer:
            writer.add(b"abc", 5)
            writer.finish()
            writer.labels_checksum = labels
        for recover in (False, True):
            with ContainerReader(path, recover=recover) as reader:
                assert (reader.labels_checksum, reader.n_written, reader.damaged) == (labels, 5, [])
    data = bytearray(path.read_bytes())
    data[chunk_spans(path)[0].start - 5] ^= 1
    path.write_bytes(data)
    with ContainerReader(path, recover=True) as reader:
        assert reader.labels_checksum == format.UNKNOWN_LABELS and reader.damaged


def test_overhead_is_small(path):
    data = write(path, [(b"", 1)] * 10)
    assert len(data) < 220 + 10 * 44


def test_every_flipped_bit_is_detected(path):
    data = write(path)
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        assert_nothing_wrong(path, damaged)


def test_every_truncation_and_appended_bytes_are_detected(path):
    data = write(path)
    for end in range(len(data)):
        assert_nothing_wrong(path, data[:end])
    assert_nothing_wrong(path, data + b"\0")
    assert_nothing_wrong(path, data + data)


@pytest.mark.parametrize("damaged_chunk", range(3))
@pytest.mark.parametrize("damages_index", [False, True])
def test_intact_chunks_of_a_damaged_file_stay_readable(path, damaged_chunk, damages_index):
    data = bytearray(write(path))
    data[chunk_spans(path)[damaged_chunk].stop - 1] ^= 1
    if damages_index:
        data[-1] ^= 1
    path.write_bytes(data)
    with ContainerReader(path, recover=True) as reader:
        intact = [i for i in range(3) if i != damaged_chunk]
        assert reader.chunk_numbers == intact
        assert list(reader) == [CHUNKS[i] for i in intact]
        assert reader.n_examples == sum(CHUNKS[i][1] for i in intact)
        assert any(f"chunk {damaged_chunk}" in reason for reason in reader.damaged)
    if not damages_index:
        with ContainerReader(path) as reader:
            assert reader.read(intact[0]) == CHUNKS[intact[0]][0]
            with pytest.raises(ContainerError, match=rf"data\.lsl: chunk {damaged_chunk}: "):
                reader.read(damaged_chunk)


def test_truncated_file_says_so_and_how_to_read_the_rest(path):
    data = write(path)
    path.write_bytes(data[: chunk_spans(path)[2].start + 9])
    with pytest.raises(ContainerError, match="cut or damaged at its end.*recover=True"):
        ContainerReader(path)
    assert read_everything(path, recover=True) == dict(enumerate(CHUNKS[:2]))


def test_damage_over_several_blocks_of_the_scan_is_skipped(path, monkeypatch):
    monkeypatch.setattr(recovery, "READ_BLOCK", 16)
    for size in range(100, 132):
        chunks = [(b"a" * size, 1), (b"b" * 9, 2)]
        data = bytearray(write(path, chunks))
        data[chunk_spans(path)[0].start] ^= 1
        path.write_bytes(data)
        assert read_everything(path, recover=True) == {1: chunks[1]}


@pytest.mark.parametrize("lost", [[0], [1], [2], [0, 1], [1, 2], [0, 1, 2]])
@pytest.mark.parametrize("damages", ["", "index", "total"])
def test_it_is_always_known_which_examples_are_missing(path, lost, damages):
    data = bytearray(write(path))
    for chunk in lost:
        data[chunk_spans(path)[chunk].start + 10] ^= 1
    if damages == "index":
        del data[chunk_spans(path)[2].stop :]
    if damages == "total":
        data[chunk_spans(path)[0].start - 1] ^= 1
    path.write_bytes(data)
    with ContainerReader(path, recover=True) as reader:
        kept = [i for i in range(3) if i not in lost]
        assert reader.chunk_numbers == kept
        assert reader.first_examples == [(0, 5, 6)[i] for i in kept]
        assert reader.n_written == 13 and reader.damaged
        for chunk, example in enumerate([2, 5, 12]):
            if chunk in lost:
                with pytest.raises(ContainerError, match=f"example {example} is lost"):
                    reader.locate([example])
            else:
                [place], _ = reader.locate([example])
                assert reader.chunk_numbers[place] == chunk


def hostile(n: int, *, is_forged: bool) -> bytes:
    """A file whose damaged content has n heads, each of which claims all that follows."""
    header = format.Header("f", "c", (2,)).to_bytes()
    seed = zlib.crc32(header[: -format.CRC.size])
    total = format.TOTAL.pack(n, format.NO_LABELS)
    data = header + total + format.CRC.pack(zlib.crc32(total, seed))
    for number in range(n):
        length = (n - 1 - number) * format.CHUNK_HEAD_SIZE
        head, _ = format.chunk_head(number, number, 1, length, seed=seed if is_forged else 1)
        data += head + bytes(4)
    return data + bytes(1)


@pytest.mark.parametrize("is_forged", [False, True])
def test_recovery_takes_linear_time_whatever_the_file_says(path, monkeypatch, is_forged):
    n_read = []
    read_at = ContainerFile.read_at

    def counting(self, offset, n_bytes):
        n_read.append(n_bytes)
        return read_at(self, offset, n_bytes)

    monkeypatch.setattr(ContainerFile, "read_at", counting)
    monkeypatch.setattr(recovery, "READ_BLOCK", 256)
    for n in (500, 2000):
        data = hostile(n, is_forged=is_forged)
        path.write_bytes(data)
        n_read.clear()
        assert read_everything(path, recover=True) == {}
        assert sum(n_read) < 10 * len(data)


def test_foreign_bytes_are_reported_once(path):
    data = write(path)
    first, second, _ = chunk_spans(path)
    path.write_bytes(data[: first.start] + b"CHNK" * 1000 + data[second.start :])
    with ContainerReader(path, recover=True) as reader:
        assert reader.chunk_numbers == [1, 2]
        assert sum("no chunk starts" in reason for reason in reader.damaged) == 1


def forge(path: Path, total: int, chunks: list[tuple[int, int, int]]) -> None:
    """A file of chunks (number, first example, number of examples) with right checksums."""
    header = format.Header("f", "c", (2,)).to_bytes()
    seed = zlib.crc32(header[: -format.CRC.size])
    content = format.TOTAL.pack(total, format.NO_LABELS)
    data = header + content + format.CRC.pack(zlib.crc32(content, seed))
    for number, first, n_examples in chunks:
        head, crc = format.chunk_head(number, first, n_examples, 0, seed=seed)
        data += head + format.CRC.pack(crc)
    path.write_bytes(data)


def test_chunks_that_contradict_the_others_are_left_out(path):
    forge(path, 10, [(0, 0, 4), (1, 3, 4), (2, 4, 7), (3, 4, 6), (4, 2**63, 1)])
    with ContainerReader(path, recover=True) as reader:
        assert reader.chunk_numbers == [0, 3]
        assert reader.n_examples == reader.n_written == 10
        assert any("chunk 1 claims examples 3 to 6, wrongly" in r for r in reader.damaged)
    forge(path, 2**63, [])
    with ContainerReader(path, recover=True) as reader:
        assert reader.n_written == 0 and "claims 9223372036854775808" in reader.damaged[0]


def test_swapped_chunks_are_detected(path):
    chunks = [(b"one", 4), (b"two", 4)]
    data = write(path, chunks)
    first, second = chunk_spans(path)
    swapped = data[: first.start] + data[second] + data[first] + data[second.stop :]
    path.write_bytes(swapped)
    with ContainerReader(path) as reader:
        for i in range(2):
            with pytest.raises(ContainerError, match=f"chunk {i}: .*another chunk"):
                reader.read(i)
    with ContainerReader(path, recover=True) as reader:
        assert list(reader) == chunks and len(reader.damaged) == 2


@pytest.mark.parametrize("cuts_index", [False, True])
def test_chunk_of_another_file_of_the_same_model_is_detected(path, tmp_path, cuts_index):
    other = write(tmp_path / "other.lsl", [(b"two", 4)])
    span = chunk_spans(tmp_path / "other.lsl")[0]
    data = write(path, [(b"one", 4)])
    data = data[: span.start] + other[span] + data[span.stop :]
    path.write_bytes(data[: span.stop] if cuts_index else data)
    assert read_everything(path, recover=True) == {}
    with pytest.raises(ContainerError):
        read_everything(path)


@pytest.mark.parametrize("data", [b"", b"\x89", b"PK\x03\x04" + bytes(99), b"a,b\n1,2\n" * 9])
def test_foreign_files_are_refused(path, data):
    path.write_bytes(data)
    for recover in (False, True):
        with pytest.raises(ContainerError, match=r"data\.lsl: (not a file of comp|is empty)"):
            ContainerReader(path, recover=recover)


def test_a_file_that_is_not_there_is_not_a_damaged_file(path):
    with pytest.raises(FileNotFoundError):
        ContainerReader(path)


def test_wrong_fingerprint_names_both_models(path):
    write(path)
    with pytest.raises(ContainerError, match="ab12 .*H_factorized.*cd34"):
        ContainerReader(path, fingerprint="cd34")


def test_newer_version_is_refused_by_name(path, monkeypatch):
    with monkeypatch.context() as newer:
        newer.setattr(format, "VERSION", 2)
        write(path)
    with pytest.raises(ContainerError, match="version 2.*reads 1 to 1"):
        ContainerReader(path)


def with_header(data: bytes, text: bytes) -> bytes:
    """A header of the given JSON with a right checksum, in place of that of `data`."""
    prefix = format.PREFIX.pack(format.MAGIC, 1, len(text), 0) + text
    return prefix + format.CRC.pack(zlib.crc32(prefix)) + data


def test_unknown_header_keys_are_ignored_and_missing_ones_named(path):
    header = format.Header("f", "c", (2,)).to_bytes()
    text = header[format.PREFIX.size : -format.CRC.size]
    path.write_bytes(with_header(b"", text[:-1] + b',"later":1}'))
    with ContainerReader(path, recover=True) as reader:
        assert reader.header.shape == (2,) and reader.n_examples == 0
        assert reader.n_written == 0 and len(reader.damaged) == 3
    deep = b"[" * 100_000
    for bad, match in (
        (b"{}", "shape"),
        (deep, "header"),
        (b"[]", "header"),
        (b"{", "header"),
        (b"\xff", "header"),
    ):
        path.write_bytes(with_header(b"", bad))
        with pytest.raises(ContainerError, match=match):
            ContainerReader(path)


def test_huge_lengths_are_refused_before_they_are_allocated(path):
    data = bytearray(write(path))
    span = chunk_spans(path)[0]
    data[span.start + 20 : span.start + 24] = b"\xff" * 4
    path.write_bytes(data)
    with ContainerReader(path) as reader, pytest.raises(ContainerError, match="chunk 0: its head"):
        reader.read(0)
    assert read_everything(path, recover=True).keys() == {1, 2}
    for length, match in ((2**32 - 1, "longer than 67108864"), (10**6, "longer than the file")):
        data[9:13] = length.to_bytes(4, "little")
        path.write_bytes(data)
        with pytest.raises(ContainerError, match=match):
            ContainerReader(path)


def test_bad_arguments_raise_and_leave_the_writer_usable(path):
    with pytest.raises(ContainerError, match="JSON"):
        ContainerWriter(path, **SETTINGS, meta={"x": object()})
    with ContainerWriter(path, **SETTINGS) as writer:
        for n_examples in (0, -1, 2**32):
            with pytest.raises(ContainerError, match="examples"):
                writer.add(b"x", n_examples)
        writer.add(b"x", 1)
    with pytest.raises(ContainerError, match="not open"):
        writer.add(b"x", 1)
    assert read_everything(path) == {0: (b"x", 1)}


@pytest.mark.parametrize("exists", [False, True])
def test_exception_leaves_the_final_name_untouched(path, exists):
    before = write(path) if exists else None
    with pytest.raises(KeyboardInterrupt), ContainerWriter(path, **SETTINGS) as writer:
        writer.add(b"new", 1)
        raise KeyboardInterrupt
    assert list(path.parent.iterdir()) == ([path] if exists else [])
    assert not exists or path.read_bytes() == before


class FullDisk:
    """A file whose writes fail after the first `n_writes`."""

    def __init__(self, file, n_writes: int):
        self.file, self.n_writes = file, n_writes

    def write(self, data: bytes) -> int:
        if self.n_writes == 0:
            raise OSError(28, "No space left on device")
        self.n_writes -= 1
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)


@pytest.mark.parametrize("n_writes", range(6))
def test_full_disk_leaves_the_final_name_untouched(path, n_writes):
    before = write(path)
    with pytest.raises(OSError, match="No space"), ContainerWriter(path, **SETTINGS) as writer:
        writer._file = FullDisk(writer._file, n_writes)
        writer.add(b"new", 1)  # three writes; then the index and the number of examples
        assert n_writes >= 3
        if n_writes == 5:
            writer.add(b"newer", 1)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_failed_chunk_cannot_be_overlooked(path):
    with pytest.raises(ContainerError, match="not open"), ContainerWriter(path, **SETTINGS) as w:
        w._file = FullDisk(w._file, 0)
        with pytest.raises(OSError):
            w.add(b"x", 1)
    assert list(path.parent.iterdir()) == []


def test_failing_fsync_leaves_the_final_name_untouched(path, monkeypatch):
    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    before = write(path)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        write(path, [(b"new", 1)])
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("exists", [False, True])
def test_a_finished_file_can_be_read_before_it_has_its_name(path, exists):
    before = write(path) if exists else None
    with ContainerWriter(path, **SETTINGS) as writer:
        writer.add(b"new", 4)
        writer.finish()
        assert read_everything(writer.temporary) == {0: (b"new", 4)}
        assert path.exists() == exists and (not exists or path.read_bytes() == before)
        with pytest.raises(ContainerError, match="not open"):
            writer.add(b"x", 1)
    assert read_everything(path) == {0: (b"new", 4)} and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("is_finished", [False, True])
def test_an_abandoned_file_leaves_nothing(path, is_finished):
    before = write(path)
    with ContainerWriter(path, **SETTINGS) as writer:
        writer.add(b"new", 1)
        if is_finished:
            writer.finish()
        writer.abandon()
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_writers_of_the_same_file_do_not_disturb_each_other(path):
    with ContainerWriter(path, **SETTINGS) as first:
        first.add(b"first", 1)
        with ContainerWriter(path, **SETTINGS) as second:
            second.add(b"second", 1)
        assert read_everything(path) == {0: (b"second", 1)}
    assert read_everything(path) == {0: (b"first", 1)} and list(path.parent.iterdir()) == [path]


def test_what_killed_writers_left_is_removed_and_nothing_else(path):
    kept = [path.with_name(name) for name in ("data.lsl.1-abc.tmp", "data.lsl.tmp", "x.lsl.tmp")]
    kept += [path.with_name("other.lsl.1-0123abcd.tmp"), path.with_name("data.lsl.1-0123abcd")]
    for other in [*kept, path.with_name("data.lsl.1-0123abcd.tmp")]:
        other.write_bytes(b"")
    write(path)
    assert sorted(path.parent.iterdir()) == sorted([*kept, path])


WRITER_SCRIPT = """
import sys
from lossyless.container import ContainerWriter
with ContainerWriter(sys.argv[1], fingerprint="f", codec="c", shape=(1,)) as writer:
    for i in range(10**9):
        writer.add(bytes(4096), 1)
        if i == 100:
            print("writing", flush=True)
"""


def start_writer(path: Path, **options) -> subprocess.Popen:
    command = [sys.executable, "-c", WRITER_SCRIPT, str(path)]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


@pytest.mark.parametrize("exists", [False, True])
def test_killed_writer_leaves_the_final_name_untouched(path, exists):
    before = write(path) if exists else None
    with start_writer(path) as writer:
        assert writer.stdout.readline() == "writing\n"
        writer.send_signal(signal.SIGKILL)
    assert writer.returncode == -signal.SIGKILL
    assert path.exists() == exists and (not exists or path.read_bytes() == before)
    [temporary] = set(path.parent.iterdir()) - {path}
    assert f".{writer.pid}-" in temporary.name and temporary.suffix == ".tmp"
    write(path)  # the next writer cleans up
    assert list(path.parent.iterdir()) == [path]


def test_file_size_limit_of_the_system_removes_the_temporary_file(path):
    before = write(path)
    limit = (1 << 20, 1 << 20)
    with start_writer(
        path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    ) as writer:
        _, errors = writer.communicate(timeout=60)
    assert writer.returncode == 1 and "File too large" in errors
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]
