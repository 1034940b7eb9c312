"""A repository at the Hugging Face Hub, read by byte ranges: an index, one shard's header, one tensor's bytes.

Large ranges arrive in parallel pieces that are kept as they come, so a broken transfer resumes from its last whole
piece. Tensors are kept in the cache by repository, commit and name, and served from there when the Hub is out of
reach. Endpoint, token and offline mode are `huggingface_hub`'s own (`HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from huggingface_hub import (
    HfApi,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from llmprobe.cache import cache_dir
from llmprobe.errors import SourceError
from llmprobe.weights.byte_source import ByteSource, LocalFile, LocalTree, buffer, check_range
from llmprobe.weights.checkpoint import TreeCheckpoint
from llmprobe.weights.deadline import ANSWER_SECONDS, SLOWEST
from llmprobe.weights.http_client import httpx
from llmprobe.weights.patience import patiently
from llmprobe.weights.ranged_download import fetch_pieces
from llmprobe.weights.tensor import StoredTensor
from llmprobe.weights.tensor_cache import KeptTensors, file_name

log = logging.getLogger(__name__)
ERROR_BYTES = 64 << 10  # of an error's page that are read


class RangesRefusedError(Exception):
    """The server answers a range with the whole file."""


class HubFile:
    """One file of a repository, read by ranges; the whole of it once, where ranges are refused."""

    def __init__(self, repo: str, commit: str, name: str) -> None:
        self.name, self.bytes_read = f"{repo}/{name}", 0
        self._download = lambda: _download(repo, commit, name)
        self._url = hf_hub_url(repo, name, revision=commit)
        self._whole: LocalFile | None = None
        with explained(repo, commit):
            ask = partial(get_hf_file_metadata, self._url)
            facts = patiently(self.name, ANSWER_SECONDS, ask)
        if facts.size is None:
            raise SourceError(f"the Hub does not give the size of {self.name}", fix="try again later")
        self.size, self._identity = facts.size, f"{facts.etag}|{commit}|{name}"
        self._tag = ""  # of the content that ranges come from: the first range's
        self._explained = lambda: explained(repo, commit)

    def read(self, offset: int, length: int) -> bytearray:
        check_range(self, offset, length)
        if self._whole is None:
            try:
                with self._explained():
                    data = fetch_pieces(self._piece, self._identity, offset, buffer(self, length), self.name)
                self.bytes_read += length
                return data
            except RangesRefusedError:
                log.warning("the server refuses ranges: downloading %s whole", self.name)
                self._whole = LocalFile(self._download())
        before = self._whole.bytes_read
        data = self._whole.read(offset, length)
        self.bytes_read += self._whole.bytes_read - before
        return data

    def _piece(self, offset: int, length: int) -> bytes:
        """One range, whole."""
        seconds = ANSWER_SECONDS + length / SLOWEST
        return patiently(f"{self.name} from byte {offset}", seconds, partial(self._request, offset, length))

    def _request(self, offset: int, length: int) -> bytes:
        span = f"{offset}-{offset + length - 1}"
        headers = {**build_hf_headers(), "Range": f"bytes={span}", "Accept-Encoding": "identity"}
        with get_session().stream("GET", self._url, headers=headers, follow_redirects=True) as response:
            if response.status_code == 200 and self.size != length:
                raise RangesRefusedError
            if response.status_code >= 400:
                response._content = _front(response, ERROR_BYTES)
                hf_raise_for_status(response)
            data = _front(response, length + 1)
            given = response.headers.get("Content-Range", f"bytes {span}/{self.size}")
            self._check_unchanged(response.headers.get("ETag", ""), given.rpartition("/")[2])
        if len(data) != length or not given.startswith(f"bytes {span}/"):
            raise httpx.ReadError(f"{len(data)} bytes ({given}) came for bytes {span}")
        return data

    def _check_unchanged(self, tag: str, size: str) -> None:
        """All ranges must be of one content, which is as long as the Hub said."""
        tag = tag.removeprefix("W/").strip('"')
        self._tag = self._tag or tag
        if (tag and tag != self._tag) or size not in (str(self.size), "*"):
            raise SourceError(
                f"{self.name} changed while it was read",
                expected=f"{self.size} bytes of one content",
                fix="run the command again",
            )


def _front(response: httpx.Response, limit: int) -> bytes:
    """The body of an answer, `limit` bytes of it at most."""
    data = bytearray()
    for chunk in response.iter_raw():
        data += chunk
        if len(data) >= limit:
            break
    return bytes(data[:limit])


class HubTree:
    """The files of a repository at one commit."""

    def __init__(self, repo: str, revision: str) -> None:
        with explained(repo, revision):
            ask = partial(HfApi().model_info, repo, revision=revision)
            info = patiently(repo, ANSWER_SECONDS, ask, broken=False)
        self.repo, self.revision, self.label = repo, str(info.sha), f"{repo}@{revision}"
        self._names = [file.rfilename for file in info.siblings or ()]

    def names(self) -> Sequence[str]:
        return self._names

    def open(self, name: str) -> ByteSource:
        there = try_to_load_from_cache(self.repo, name, revision=self.revision)
        if isinstance(there, str):  # the Hub's own cache has it whole
            return LocalFile(Path(there))
        return HubFile(self.repo, self.revision, name)

    def local(self, name: str) -> Path:
        return _download(self.repo, self.revision, name)


class HubCheckpoint(TreeCheckpoint):
    """A checkpoint at the Hub whose tensors are kept once they were read."""

    def __init__(self, tree: HubTree, kept: KeptTensors) -> None:
        super().__init__(tree)
        self._kept = kept
        kept.remember(list(self.names()), self.config)

    def read(self, name: str) -> StoredTensor:
        stored = self._kept.read(name)
        if stored is None:
            stored = super().read(name)
            self._kept.write(stored)
        return stored


class KeptCheckpoint:
    """What is kept of a checkpoint, while the Hub is out of reach."""

    bytes_read = 0
    missing = ""

    def __init__(self, label: str, kept: KeptTensors, why: SourceError) -> None:
        self.label, self.revision = label, kept.commit
        self._kept, self._why = kept, why
        self._names, self.config = kept.recall()

    def names(self) -> Sequence[str]:
        return self._names

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.read(name).values.shape)

    def read(self, name: str) -> StoredTensor:
        stored = self._kept.read(name)
        if stored is None:
            raise self._why
        return stored


def open_hub(repo: str, revision: str) -> HubCheckpoint | KeptCheckpoint | SnapshotCheckpoint:
    """A repository's tensors by name; from the cache where the Hub cannot be reached.

    Raises
    ------
    SourceError
        No such repository or revision, a gated one, or the Hub is out of reach and nothing is kept.
    """
    folder = cache_dir() / "hub" / file_name(repo)
    try:
        tree = HubTree(repo, revision)
    except OutOfReachError as error:
        if (whole := _in_hub_cache(repo, revision)) is not None:
            return whole
        kept = KeptTensors.at_revision(folder, revision)
        if kept is None:
            raise
        log.warning("the Hub is out of reach: using what is kept of %s", repo)
        return KeptCheckpoint(f"{repo}@{revision}", kept, error)
    kept = KeptTensors(folder, tree.revision)
    kept.note_revision(revision)
    return HubCheckpoint(tree, kept)


class SnapshotCheckpoint(TreeCheckpoint):
    """A checkpoint that lies in the Hub's own cache."""

    def __init__(self, label: str, folder: Path) -> None:
        super().__init__(LocalTree(folder))
        self.label, self.revision = label, folder.name


def _in_hub_cache(repo: str, revision: str) -> SnapshotCheckpoint | None:
    """What transformers or the Hub's client downloaded of a repository, if that holds weights."""
    try:
        folder = Path(snapshot_download(repo, revision=revision, local_files_only=True))
        return SnapshotCheckpoint(f"{repo}@{revision}", folder)
    except (LocalEntryNotFoundError, SourceError, OSError, ValueError):
        return None


class OutOfReachError(SourceError):
    """The Hub cannot be asked."""


@contextmanager
def explained(repo: str, revision: str) -> Iterator[None]:
    """Turn the Hub's errors into one line that says what to do."""
    try:
        yield
    except GatedRepoError as error:
        raise SourceError(
            f"{repo} is gated",
            expected="its terms accepted by you, and your token",
            fix=f"accept the terms on the page of {repo}, then set HF_TOKEN",
        ) from error
    except RevisionNotFoundError as error:
        raise SourceError(f"{repo} has no revision {revision!r}", fix="look at its branches and tags") from error
    except (OfflineModeIsEnabled, LocalEntryNotFoundError) as error:
        raise OutOfReachError(
            f"{repo} is not in the cache, and the Hub is switched off or out of reach",
            fix="unset HF_HUB_OFFLINE, or check the connection",
        ) from error
    except RepositoryNotFoundError as error:
        raise SourceError(
            f"there is no model {repo} at the Hub", fix="check the spelling; if it is private, set HF_TOKEN"
        ) from error
    except EntryNotFoundError as error:
        raise SourceError(
            f"{repo} at {revision} lacks a file that its index names", fix="take another revision"
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no"
        raise SourceError(f"the Hub answers {repo} with status {status}", fix="try again later") from error
    except httpx.TransportError as error:
        raise OutOfReachError(f"the Hub cannot be reached for {repo}: {error}", fix="check the connection") from error


def _download(repo: str, commit: str, name: str) -> Path:
    with explained(repo, commit):
        return Path(hf_hub_download(repo, name, revision=commit))
