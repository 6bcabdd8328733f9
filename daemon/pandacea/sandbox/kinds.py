"""The two sandboxes by name, put together."""

from __future__ import annotations

from pandacea.sandbox.bubblewrap import BubblewrapMaker
from pandacea.sandbox.docker import DockerMaker
from pandacea.sandbox.inputs import open_for_guest
from pandacea.sandbox.runner import BoxSandbox
from pandacea.sandbox.settings import BubblewrapSettings, DockerSettings


class DockerSandbox(BoxSandbox):
    """One container for each job, through the engine's API."""

    def __init__(self, settings: DockerSettings) -> None:
        maker = DockerMaker(settings)
        super().__init__(maker, settings.pool, lambda path: open_for_guest(path, maker.guest_uid))


class BubblewrapSandbox(BoxSandbox):
    """One bubblewrap process tree for each job; needs no engine."""

    def __init__(self, settings: BubblewrapSettings) -> None:
        maker = BubblewrapMaker(settings)
        super().__init__(maker, settings.pool, lambda path: open_for_guest(path, maker.guest_uid))
