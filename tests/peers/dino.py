"""Dino, a desktop XMPP client that nobody here wrote, headless: its own display, D-Bus session and sound server.

`async with Dino(login, focus) as dino`: a tone goes into its microphone, `tones` measures its speaker, `picture`
is its screen; calls are accepted over D-Bus (what its notifications do) and placed with the mouse and keyboard.
Tried with Dino 0.4.2 of Debian 12.
Not here: account, certificate and name resolution (`tests.peers.dinohome`), what is asserted.
"""

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from tests.peers.dinohome import DinoHome, Login, end, reachable
from tests.peers.dinohome import why_not as _no_dino

RATE_HZ = 48_000
WIDTH, HEIGHT = 1280, 900
VOICE_HZ = 16_000
VOICE_S = 900  # longer than any scenario; 29 MB
SYLLABLES_HZ = 4.0
READY_S = 40.0  # two busy cores
ASK_S = 15.0
# In Dino's main window of 1200 x 700 as it opens: the handset in the header and the second line of its menu.
_HANDSET = (978, 28)
_VIDEO_CALL = (978, 111)

_PROGRAMS = {
    "Xvfb": "xvfb",
    "openbox": "openbox",
    "xdotool": "xdotool",
    "dbus-daemon": "dbus",
    "gdbus": "libglib2.0-bin",
    "pulseaudio": "pulseaudio",
    "pactl": "pulseaudio-utils",
    "parec": "pulseaudio-utils",
    "import": "imagemagick",
}
_SOUND = """
load-module module-native-protocol-unix auth-anonymous=1 socket={run}/sound
load-module module-null-sink sink_name=out sink_properties=device.description=Speaker rate=48000
load-module module-null-sink sink_name=mic sink_properties=device.description=Wire rate=48000
load-module module-remap-source source_name=microphone master=mic.monitor source_properties=device.description=Microphone
set-default-sink out
set-default-source microphone
"""


def why_not() -> str:
    """Empty when a headless Dino can run here, otherwise the reason to print when a test is skipped."""
    missing = sorted({pkg for name, pkg in _PROGRAMS.items() if shutil.which(name) is None})
    reason = _no_dino()
    return reason or (f"Dino needs: apt install {' '.join(missing)}" if missing else "")


@dataclass(slots=True)
class Dino:
    """One fresh Dino. Logs stay in `log`; everything else is in a short-lived folder (socket paths are short)."""

    login: Login
    focus: str
    log: Path
    tone_hz: int = 440
    folder: Path = Path()
    display: str = ""
    _home: DinoHome | None = None
    _ends: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    _process: asyncio.subprocess.Process | None = None
    _window: str = ""
    _answered: int = 0

    async def __aenter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="dino-"))
        self.log.mkdir(parents=True, exist_ok=True)
        self._ends.callback(shutil.rmtree, self.folder, ignore_errors=True)
        try:
            await self._start()
        except BaseException:
            await self._ends.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._ends.aclose()

    @property
    def home(self) -> DinoHome:
        if self._home is None:
            raise RuntimeError("dino does not run")
        return self._home

    # --- starting ------------------------------------------------------------------------------------

    async def _start(self) -> None:
        run = self.folder / "run"
        run.mkdir(mode=0o700)
        self.display = await self._start_display()
        environment = {
            "HOME": str(self.folder / "home"),
            "XDG_RUNTIME_DIR": str(run),
            "DBUS_SESSION_BUS_ADDRESS": f"unix:path={run}/bus",
            "PULSE_SERVER": f"unix:{run}/sound",
            "DISPLAY": self.display,
            "GDK_BACKEND": "x11",
            "GSK_RENDERER": "cairo",
            "LIBGL_ALWAYS_SOFTWARE": "1",
            "G_MESSAGES_DEBUG": "libdino rtp ice dino xmpp-vala",
        }
        self._home = DinoHome(self.folder, self.login, (self.focus,), environment)
        (self.folder / "home").mkdir()
        (self.folder / "pulse.pa").write_text(_SOUND.format(run=run))
        await self._spawn(
            "bus", "dbus-daemon", "--session", "--nofork", f"--address=unix:path={run}/bus"
        )
        await self._spawn(
            "sound",
            *("pulseaudio", "-n", "-F", str(self.folder / "pulse.pa")),
            *("--daemonize=no", "--use-pid-file=no", "--exit-idle-time=-1"),
        )
        await self._spawn("windows", "openbox")
        await self._until("the sound server", lambda: self._succeeds("pactl", "info"))
        voice = self.folder / "voice.raw"
        voice.write_bytes(_voice(self.tone_hz))
        await self._spawn(
            "voice",
            *("pacat", "--playback", "--device=mic", "--raw", "--format=s16le"),
            *(f"--rate={VOICE_HZ}", "--channels=1", str(voice)),
        )
        await self._home.create()
        address = await self._ends.enter_async_context(reachable(self.login.port))
        self._process = await self._spawn(
            "dino", *self._home.command("--print-xmpp=all", address=address)
        )
        await self._until("Dino's login", self._is_online)
        self._window = await self.mouse("getactivewindow")

    async def _start_display(self) -> str:
        """Xvfb takes a free number and tells it."""
        readable, writable = os.pipe()
        try:
            with (self.log / "display.log").open("ab") as log:
                process = await asyncio.create_subprocess_exec(
                    *("Xvfb", "-displayfd", str(writable), "-nolisten", "tcp"),
                    *("-screen", "0", f"{WIDTH}x{HEIGHT}x24"),
                    pass_fds=(writable,),
                    stdout=log,
                    stderr=log,
                )
            self._ends.push_async_callback(end, process)
            os.close(writable)
            writable = -1
            with os.fdopen(readable, closefd=False) as pipe:
                number = await asyncio.wait_for(asyncio.to_thread(pipe.readline), READY_S)
        finally:
            os.close(readable)
            if writable >= 0:
                os.close(writable)
        if not number.strip():
            raise RuntimeError("Xvfb did not start")
        return f":{number.strip()}"

    async def _spawn(self, name: str, *command: str) -> asyncio.subprocess.Process:
        with (self.log / f"{name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *command,
                env=self.home.variables(),
                cwd=self.folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._ends.push_async_callback(end, process)
        return process

    async def _until(self, what: str, holds: Callable[[], Awaitable[bool]]) -> None:
        try:
            async with asyncio.timeout(READY_S):
                while not await holds():
                    if self._process is not None and self._process.returncode is not None:
                        raise RuntimeError(f"dino ended\n{self.last_words()}")
                    await asyncio.sleep(0.3)
        except TimeoutError:
            raise RuntimeError(f"{what}: not within {READY_S:.0f} s\n{self.last_words()}") from None

    # --- tools ---------------------------------------------------------------------------------------

    async def _tool(self, *command: str) -> bytes:
        """What the program printed. Raises RuntimeError when it fails."""
        process = await asyncio.create_subprocess_exec(
            *command,
            env=self.home.variables(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, errors = await asyncio.wait_for(process.communicate(), ASK_S)
        finally:
            await end(process)
        if process.returncode:
            raise RuntimeError(f"{command[0]}: {errors.decode(errors='replace')[-300:]}")
        return out

    async def _succeeds(self, *command: str) -> bool:
        with contextlib.suppress(RuntimeError):
            await self._tool(*command)
            return True
        return False

    async def _act(self, action: str, value: str) -> None:
        await self._tool(
            *("gdbus", "call", "--session", "--dest", "im.dino.Dino"),
            *("--object-path", "/im/dino/Dino", "--method", "org.gtk.Actions.Activate"),
            *(action, f"[<{value}>]", "{}"),
        )

    async def mouse(self, *words: str) -> str:
        """xdotool with these words."""
        return (await self._tool("xdotool", *words)).decode().strip()

    # --- what it knows -------------------------------------------------------------------------------

    def stanzas(self) -> str:
        """Everything it sent and received, as it printed it."""
        return (self.log / "dino.log").read_text(errors="replace")

    def last_words(self, lines: int = 40) -> str:
        with contextlib.suppress(OSError):
            return "\n".join(self.stanzas().splitlines()[-lines:])
        return ""

    async def _is_online(self) -> bool:
        """Logged in, and the focus has shown itself: without its presence Dino places no call."""
        return f'from="{self.focus}/' in self.stanzas().replace("'", '"')

    def _row(self, question: str, *values: Any) -> tuple[Any, ...] | None:
        with contextlib.closing(self.home.read()) as base:
            row: tuple[Any, ...] | None = base.execute(question, values).fetchone()
            return row

    def conversation(self, bare: str) -> int | None:
        row = self._row(
            "select c.id from conversation c join jid j on j.id = c.jid_id where j.bare_jid = ?",
            bare,
        )
        return None if row is None else int(row[0])

    # --- driving -------------------------------------------------------------------------------------

    async def open(self, bare: str) -> None:
        number = self.conversation(bare)
        if number is None:
            raise RuntimeError(f"dino has no conversation with {bare}")
        await self._act("open-conversation", str(number))

    def _newest_call(self, outgoing: bool) -> int:
        row = self._row("select max(id) from call where direction = ?", int(outgoing))
        return 0 if row is None or row[0] is None else int(row[0])

    async def accept(self) -> None:
        """The call that rings, or the next one; only calls of the focus."""

        async def rings() -> bool:
            return self._newest_call(outgoing=False) > self._answered

        await self._until("a ringing call", rings)
        self._answered = self._newest_call(outgoing=False)
        await self._act("accept-call", f"({self.conversation(self.focus)}, {self._answered})")

    async def call(self) -> None:
        """A video call to the focus, as a person does it: the handset in the header, then `Video call`."""
        before = self._newest_call(outgoing=True)

        async def has_called() -> bool:
            await self.open(self.focus)
            await asyncio.sleep(1.5)  # the header follows the conversation
            for x, y in (_HANDSET, _VIDEO_CALL):
                await self._click(x, y)
                await asyncio.sleep(1)
            if self._newest_call(outgoing=True) > before:
                return True
            await self.mouse("key", "Escape")  # a menu that came late
            return False

        await self._until("an outgoing call", has_called)

    async def _click(self, x: int, y: int) -> None:
        await self.mouse("mousemove", "--window", self._window, str(x), str(y))
        await self.mouse("click", "1")

    async def speak(self, on: bool) -> None:
        """Sound or silence at the microphone; nothing is signalled."""
        await self._tool("pactl", "set-sink-mute", "mic", "0" if on else "1")

    async def hang_up(self) -> None:
        """Close the call's window, which has the focus of the keyboard since the call began."""
        if await self.mouse("getactivewindow") == self._window:
            raise RuntimeError("the call has no window")
        await self.mouse("key", "alt+F4")

    async def screenshot(self, file: Path) -> None:
        await self._tool("import", "-display", self.display, "-window", "root", str(file))

    async def picture(self) -> np.ndarray[Any, Any]:
        """The screen as rows of pixels of red, green, blue."""
        raw = await self._tool(
            "import", "-display", self.display, "-window", "root", "-depth", "8", "rgb:-"
        )
        return np.frombuffer(raw, dtype=np.uint8).reshape(HEIGHT, WIDTH, 3)

    async def share_of(self, rgb: Sequence[int], tolerance: int = 48) -> float:
        """Of the screen, 0 to 1."""
        off = np.abs((await self.picture()).astype(np.int16) - np.array(rgb, dtype=np.int16))
        return float((off <= tolerance).all(axis=2).mean())

    async def tones(self, seconds: float = 1.0) -> list[list[float]]:
        """[Hz, dB] of the strongest peaks at its speaker; empty when silent."""
        wanted = int(RATE_HZ * seconds) * 2
        process = await asyncio.create_subprocess_exec(
            *("parec", "--device=out.monitor", "--format=s16le", f"--rate={RATE_HZ}"),
            *("--channels=1", "--raw", "--latency-msec=50"),
            env=self.home.variables(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            if process.stdout is None:
                raise RuntimeError("parec has no output")
            raw = await asyncio.wait_for(process.stdout.readexactly(wanted), ASK_S)
        finally:
            await end(process)
        return _peaks(np.frombuffer(raw, dtype="<i2").astype(np.float64) / 32768)


def _voice(tone_hz: int) -> bytes:
    """A tone in syllables: Dino's noise suppression takes away what never changes."""
    at_s = np.arange(VOICE_HZ * VOICE_S) / VOICE_HZ
    loud = 0.5 + 0.5 * np.sign(np.sin(2 * np.pi * SYLLABLES_HZ * at_s) + 0.3)
    return bytes((9000 * loud * np.sin(2 * np.pi * tone_hz * at_s)).astype("<i2").tobytes())


def _peaks(sound: np.ndarray[Any, Any]) -> list[list[float]]:
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)))) / len(sound) * 4
    level_db = 20 * np.log10(spectrum + 1e-9)
    found: list[list[float]] = []
    for index in np.argsort(level_db)[::-1][:40]:
        hz = float(index * RATE_HZ / len(sound))
        if level_db[index] < -50 or hz < 100:
            continue
        if all(abs(hz - other) > 25 for other, _ in found):
            found.append([round(hz, 1), round(float(level_db[index]), 1)])
    return found[:5]
