"""Downloads from servers on this machine: one that resumes, one that will not, one that breaks off, one that lies."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from calipers.data import available, fetch, load, verify
from calipers.errors import BadInput

IMAGES = "train-images-idx3-ubyte.gz"


class Server:
    """Hands out ``files``; ``behave`` is "range", "plain" (ignores Range), "odd" (answers another range than asked),
    "break" (half of what is asked, then hangs up) or "gone" (404). Remembers (file, Range) of every request."""

    def __init__(self, files: dict[str, bytes], behave: str = "range") -> None:
        self.files, self.behave, self.asked = files, behave, []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name, wanted = self.path.rpartition("/")[2], self.headers.get("Range")
                server.asked.append((name, wanted))
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    server.answer(self, server.files[name], wanted)

            def log_message(self, *_: object) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/data/"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, to: BaseHTTPRequestHandler, content: bytes, wanted: str | None) -> None:
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.behave != "plain" else 0
        if self.behave == "gone" or start >= len(content):
            to.send_response(404 if self.behave == "gone" else 416)
            to.send_header("Content-Length", "0")
            to.end_headers()
            return
        said = 0 if self.behave == "odd" else start
        body = content[said:]
        to.send_response(206 if wanted and self.behave != "plain" else 200)
        if wanted and self.behave != "plain":
            to.send_header("Content-Range", f"bytes {said}-{len(content) - 1}/{len(content)}")
        to.send_header("Content-Length", str(len(body)))
        to.end_headers()
        to.wfile.write(body[: len(body) // 2] if self.behave == "break" else body)


@pytest.fixture
def serve():
    running: list[Server] = []

    def start(files: dict[str, bytes], behave: str = "range") -> Server:
        running.append(Server(files, behave))
        return running[-1]

    yield start
    for server in running:
        server.http.shutdown()
        server.http.server_close()


def leave_part(home: Path, content: bytes) -> Path:
    (home / "mnist").mkdir()
    part = home / "mnist" / f"{IMAGES}.part"
    part.write_bytes(content)
    return part


def test_fetch_verify_load(tiny_mnist, serve, tmp_path):
    server, home = serve(tiny_mnist), tmp_path / "not" / "yet"
    assert available(home)["mnist"] == "missing"
    seen: list[tuple[str, int, int | None]] = []
    put = fetch("mnist", home, base_url=server.url, progress=lambda *report: seen.append(report))
    assert {path.name: path.read_bytes() for path in put} == tiny_mnist
    assert all(found.ok for found in verify("mnist", home))
    assert available(home)["mnist"] == "present"
    assert len(load("mnist", home=home)) == 2
    assert (IMAGES, len(tiny_mnist[IMAGES]), len(tiny_mnist[IMAGES])) in seen


def test_what_is_right_already_is_left_alone(tiny_mnist, serve, lay):
    server, home = serve(tiny_mnist), lay("mnist", tiny_mnist)
    assert fetch("mnist", home, base_url=server.url) == []
    assert server.asked == []


def test_only_what_is_missing_or_wrong_is_fetched(tiny_mnist, serve, lay):
    home = lay("mnist", tiny_mnist | {"t10k-labels-idx1-ubyte.gz": b"damaged"})
    (home / "mnist" / IMAGES).unlink()
    assert available(home)["mnist"] == "incomplete"
    server = serve(tiny_mnist)
    put = fetch("mnist", home, base_url=server.url)
    assert sorted(path.name for path in put) == ["t10k-labels-idx1-ubyte.gz", IMAGES]
    assert all(found.ok for found in verify("mnist", home))


def test_a_part_is_gone_on_with(tiny_mnist, serve, tmp_path):
    leave_part(tmp_path, tiny_mnist[IMAGES][:100])
    server = serve(tiny_mnist)
    seen: list[tuple[str, int, int | None]] = []
    fetch("mnist", tmp_path, base_url=server.url, progress=lambda *report: seen.append(report))
    assert server.asked[0] == (IMAGES, "bytes=100-")
    assert seen[0] == (IMAGES, len(tiny_mnist[IMAGES]), len(tiny_mnist[IMAGES]))
    assert (tmp_path / "mnist" / IMAGES).read_bytes() == tiny_mnist[IMAGES]


@pytest.mark.parametrize("behave", ["plain", "odd"])
def test_a_server_that_will_not_go_on_is_read_from_the_start(tiny_mnist, serve, tmp_path, behave):
    leave_part(tmp_path, tiny_mnist[IMAGES][:100])
    fetch("mnist", tmp_path, base_url=serve(tiny_mnist, behave).url)
    assert (tmp_path / "mnist" / IMAGES).read_bytes() == tiny_mnist[IMAGES]


def test_a_whole_part_needs_no_request(tiny_mnist, serve, tmp_path):
    leave_part(tmp_path, tiny_mnist[IMAGES])
    server = serve(tiny_mnist)
    fetch("mnist", tmp_path, base_url=server.url)
    assert IMAGES not in [name for name, _ in server.asked]
    assert all(found.ok for found in verify("mnist", tmp_path))


def test_a_part_that_is_too_long_is_started_again(tiny_mnist, serve, tmp_path):
    leave_part(tmp_path, bytes(len(tiny_mnist[IMAGES]) + 7))
    server = serve(tiny_mnist)
    fetch("mnist", tmp_path, base_url=server.url)
    assert [wanted for name, wanted in server.asked if name == IMAGES] == [
        f"bytes={len(tiny_mnist[IMAGES]) + 7}-",
        None,
    ]
    assert all(found.ok for found in verify("mnist", tmp_path))


def test_a_broken_connection_leaves_the_part_and_the_next_try_goes_on(tiny_mnist, serve, tmp_path):
    server = serve(tiny_mnist, "break")
    half = len(tiny_mnist[IMAGES]) // 2
    with pytest.raises(BadInput, match=rf"expected the whole file, got .* after {half} bytes; run it again"):
        fetch("mnist", tmp_path, base_url=server.url)
    assert (tmp_path / "mnist" / f"{IMAGES}.part").stat().st_size == half
    assert not (tmp_path / "mnist" / IMAGES).exists()
    server.behave = "range"
    fetch("mnist", tmp_path, base_url=server.url)
    assert server.asked[1] == (IMAGES, f"bytes={half}-")
    assert all(found.ok for found in verify("mnist", tmp_path))


@pytest.mark.parametrize("wrong", ["other", "page"])
def test_wrong_content_is_removed_and_says_expected_and_got(tiny_mnist, serve, tmp_path, wrong):
    other = tiny_mnist["t10k-images-idx3-ubyte.gz"] if wrong == "other" else b"<html>moved</html>"
    server = serve(tiny_mnist | {IMAGES: other})
    message = "expected .* bytes of content, got" if wrong == "other" else "[Nn]ot a gzip"
    with pytest.raises(BadInput, match=rf"download of http.*{message}.*removed"):
        fetch("mnist", tmp_path, base_url=server.url)
    assert list((tmp_path / "mnist").iterdir()) == []


def test_a_wrong_checksum_is_removed_and_says_expected_and_got(tiny_mnist, serve, tmp_path):
    import gzip

    raw = bytearray(gzip.decompress(tiny_mnist[IMAGES]))
    raw[-1] ^= 1
    with pytest.raises(BadInput, match=r"expected content of sha256 [0-9a-f]{64}, got [0-9a-f]{64}; it was removed"):
        fetch("mnist", tmp_path, base_url=serve(tiny_mnist | {IMAGES: gzip.compress(bytes(raw))}).url)
    assert list((tmp_path / "mnist").iterdir()) == []


def test_a_mirror_that_compressed_again_is_right(tiny_mnist, serve, tmp_path):
    import gzip

    again = {name: gzip.compress(gzip.decompress(packed), 1) for name, packed in tiny_mnist.items()}
    fetch("mnist", tmp_path, base_url=serve(again).url)
    assert all(found.ok for found in verify("mnist", tmp_path))


def test_refusals_and_no_server_are_sentences(tiny_mnist, serve, tmp_path):
    server = serve(tiny_mnist, "gone")
    with pytest.raises(BadInput, match=rf"{IMAGES}: expected the file, got HTTP status 404"):
        fetch("mnist", tmp_path, base_url=server.url)
    with pytest.raises(BadInput, match="download of htp"):
        fetch("mnist", tmp_path, base_url="htp://127.0.0.1")
    server.http.server_close()
    with pytest.raises(BadInput, match="after 0 bytes"):
        fetch("mnist", tmp_path, base_url=server.url)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here, the disk that is always full")
def test_a_full_disk_is_a_sentence_and_the_part_stays(tiny_mnist, serve, tmp_path):
    (tmp_path / "mnist").mkdir()
    part = tmp_path / "mnist" / f"{IMAGES}.part"
    part.symlink_to("/dev/full")
    with pytest.raises(BadInput, match="No space left on device; mend this and run it again"):
        fetch("mnist", tmp_path, base_url=serve(tiny_mnist).url)
    assert part.is_symlink()


def test_a_home_that_is_a_file_is_a_sentence(tiny_mnist, serve, tmp_path):
    (tmp_path / "home").write_text("words")
    with pytest.raises(BadInput, match="files of mnist"):
        fetch("mnist", tmp_path / "home", base_url=serve(tiny_mnist).url)


def test_cifar_comes_in_an_archive(tiny_cifar, serve, tmp_path):
    server = serve(tiny_cifar)
    put = fetch("cifar10", tmp_path, base_url=server.url)
    assert [name for name, _ in server.asked] == ["cifar-10-binary.tar.gz"]
    assert {path.name for path in put} == set(tiny_cifar) - {"cifar-10-binary.tar.gz"}
    assert all(found.ok for found in verify("cifar10", tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["cifar-10-batches-bin"]
    assert len(load("cifar10", home=tmp_path, split="train")) == 10


def test_an_archive_that_is_here_already_is_used(tiny_cifar, serve, tmp_path):
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(tiny_cifar["cifar-10-binary.tar.gz"])
    server = serve({})
    fetch("cifar10", tmp_path, base_url=server.url)
    assert server.asked == []
    assert all(found.ok for found in verify("cifar10", tmp_path))


def test_a_shorter_test_file_is_loaded_but_not_verified(tiny_cifar, lay):
    home = lay("cifar-10-batches-bin", tiny_cifar | {"test_batch.bin": tiny_cifar["test_batch.bin"][:3073]})
    *train, test = verify("cifar10", home)
    assert all(found.ok for found in train)
    assert not test.ok
    assert test.what == "expected 6146 bytes of content, got 3073 (the first 1 examples; they can be loaded)"


def test_verify_names_every_kind_of_trouble(tiny_mnist, lay):
    home = lay("mnist", tiny_mnist | {IMAGES: tiny_mnist[IMAGES][:50], "t10k-images-idx3-ubyte.gz": b"words"})
    (home / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    found = {one.file.name: one for one in verify("mnist", home)}
    assert [one.ok for one in found.values()] == [False, True, False, False]
    assert "end-of-stream" in found[IMAGES].what
    assert found["t10k-labels-idx1-ubyte.gz"].what == "no such file"


@pytest.mark.parametrize("use", [fetch, verify])
def test_names_without_official_files_are_refused(use, tmp_path):
    with pytest.raises(BadInput, match="did you mean 'cifar10'"):
        use("cifar-10", tmp_path)
    with pytest.raises(BadInput, match="embedded in scikit-learn"):
        use("digits", tmp_path)
    with pytest.raises(BadInput, match="CALIPERS_DATA"):
        use("mnist")
