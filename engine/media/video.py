"""Videos: their pictures as images, their sound track as sounds, each with its times in seconds of the video.

A picture is taken every `frame_s`: the one that is on the screen then. Only what it needs is decoded: stretches from
one keyframe to the next in which none is wanted are passed over, and so are pictures that no other one is made from.
What is given is the same as if all were decoded. Time counts from the first picture, or from the first sound where
there are no pictures.
"""

from collections.abc import Iterator
from itertools import groupby
from math import ceil, inf
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from xmr.engine.errors import XmrError
from xmr.engine.media import image, sound
from xmr.engine.media.content import Content
from xmr.engine.media.piece import Piece, Stream
from xmr.engine.media.reading import Reading
from xmr.engine.media.sound import Samples

if TYPE_CHECKING:  # a query starts without it
    from PIL import Image

SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg"})
MAX_FRAME_PIXELS = 36_000_000  # 8K; decoders hold several frames at once
MAX_DURATION_S = 24 * 3600.0
MAX_GROUP = 2000  # packets from one keyframe to the next that are held to see whether they are wanted
GAP_S = 0.5  # of silence in a sound track, from which its windows begin anew
BACK_S = (0.0, 2.0, 20.0, MAX_DURATION_S)  # that are gone farther back: in a file without an index, a seek is a guess
ROUNDED_S = 1e-3  # to which the times of items are told
TINY = 1e-6  # of the distance between frames: times are fractions, and rounded


def frames(content: Content, preprocessing: image.Preprocessing, reading: Reading | None = None) -> Stream:
    """A picture every `frame_s`, with the time for which it stands; none of a video that is sound alone."""
    notes: list[str] = []
    return Stream(_frames(content, preprocessing, (reading or Reading()).frame_s, notes), notes)


def picture_at(content: Content, second: float) -> "Image.Image":
    """What is on the screen at a second, upright; the first picture before there is one, behind the end the last.

    XmrError for a video that is sound alone, or of which nothing can be decoded there.
    """
    picture = None
    for back_s in BACK_S:
        picture, is_later = _picture_from(content, second, back_s)
        if picture is not None and not is_later:
            break
    if picture is None:
        raise XmrError(f"{content}: no picture at {second:g} s that can be decoded; choose another second")
    return picture


def _picture_from(content: Content, second: float, back_s: float) -> tuple["Image.Image | None", bool]:
    """The picture at a second, decoded from a keyframe so far before it; and whether it is a later one."""
    from xmr.engine.media.container import decoded, opened

    with opened(content) as container:
        track = _track(container, content)
        if track is None:
            raise XmrError(f"{content}: sound alone; choose a video with pictures")
        _check_size(track.codec_context.width, track.codec_context.height, content)
        zero_s = float((track.start_time or 0) * track.time_base)
        container.seek(max(0, int((second + zero_s - back_s) * 1_000_000)))
        # in the track's time base: the frame's own is not there at the end of a stretch
        last_pts = (second + ROUNDED_S + zero_s) / float(track.time_base)
        found = _last_until(last_pts, decoded(container, track))
        if found is None:
            return None, False
        return _upright(found), found.pts is not None and found.pts > last_pts


def _last_until(last_pts: float, frames: Iterator[Any]) -> Any:
    """The last one up to a time, or the first one where all are later; None where there are none."""
    found = None
    for frame in frames:
        if found is not None and frame.pts is not None and frame.pts > last_pts:
            break
        found = frame
    return found


def sounds(content: Content, preprocessing: sound.Preprocessing, reading: Reading | None = None) -> Stream:
    """The windows of its first sound track; none of a silent video."""
    notes: list[str] = []
    return Stream(_sounds(content, preprocessing, reading, notes), notes)


def _frames(content: Content, preprocessing: image.Preprocessing, frame_s: float, notes: list[str]) -> Iterator[Piece]:
    from xmr.engine.media.container import duration_s, opened

    with opened(content) as container:
        track = _track(container, content)
        if track is None:
            return
        _check_size(track.codec_context.width, track.codec_context.height, content)
        promised_s = duration_s(container, track)
        _check_duration(promised_s, content)
        end_s = 0.0
        for start_s, end_s, picture in shown(container, track, frame_s):
            _check_duration(end_s, content)
            yield Piece(image.squared(picture, preprocessing), round(start_s, 3), round(end_s, 3))
    if end_s == 0:
        raise XmrError(f"{content}: no picture in it that can be decoded; convert or replace it")
    _note_cut("pictures", end_s, promised_s, content, notes)


def _sounds(
    content: Content, preprocessing: sound.Preprocessing, reading: Reading | None, notes: list[str]
) -> Iterator[Piece]:
    from xmr.engine.media.container import duration_s, opened

    with opened(content) as container:
        pictures = _track(container, content)
        if not container.streams.audio:
            return
        track = container.streams.audio[0]
        zero = pictures if pictures is not None and pictures.start_time is not None else track
        zero_s = float((zero.start_time or 0) * (zero.time_base or 0))
        promised_s, end_s = duration_s(container, track), 0.0
        _check_duration(promised_s, content)
        stretches = groupby(_heard(container, track, zero_s, content), key=itemgetter(0, 1))
        for (first_s, native_hz), blocks in stretches:
            samples = sound.mono((block for *_, block in blocks), native_hz, preprocessing.rate_hz, content)
            for piece in sound.windows(samples, preprocessing, reading, first_s):
                end_s = piece.end_s or 0.0
                _check_duration(end_s, content)
                yield piece
    if end_s:  # a track without samples is as good as none
        _note_cut("sound", end_s, promised_s, content, notes)


def _track(container: Any, content: Content) -> Any:
    """The pictures that move, or None; the cover of an album is none of them."""
    import av

    tracks = [track for track in container.streams.video if not track.disposition & av.stream.Disposition.attached_pic]
    if not tracks and not container.streams.audio:
        raise XmrError(f"{content}: neither pictures nor sound in it; replace it")
    return tracks[0] if tracks else None


def _check_size(width: int, height: int, content: Content) -> None:
    if width * height > MAX_FRAME_PIXELS:
        raise XmrError(
            f"{content}: {width}x{height} pixels found, videos up to {MAX_FRAME_PIXELS / 1e6:.0f} Mpx are read; "
            "make it smaller"
        )


def _check_duration(duration_s: float, content: Content) -> None:
    if duration_s > MAX_DURATION_S:
        raise XmrError(
            f"{content}: {duration_s / 3600:.0f} hours found, videos up to {MAX_DURATION_S / 3600:.0f} are read; cut it"
        )


def _note_cut(what: str, end_s: float, promised_s: float, content: Content, notes: list[str]) -> None:
    from xmr.engine.media.container import CUT_S, lacks_bytes

    if lacks_bytes(content):  # of these FFmpeg says that they are as long as what is there
        notes.append(f"{content}: cut short, {end_s:.1f} s of {what} are there")
    elif end_s < promised_s - CUT_S:
        notes.append(f"{content}: cut short, {end_s:.1f} of {promised_s:.1f} s of {what} are there")


def shown(container: Any, track: Any, frame_s: float) -> Iterator[tuple[float, float, "Image.Image"]]:
    """What is on the screen every `frame_s`: from when, until when, and the upright picture.

    A picture that stays for longer is given once.
    """
    before: tuple[int, int, Any] | None = None  # of the last one chosen: its first and its last point, and itself
    frame, next_point, end_s = None, 0, 0.0
    for time_s, duration_s, following in _in_time(container, track, frame_s):
        point = _points_before(time_s, frame_s)
        if frame is None:
            next_point = point if time_s > frame_s else 0  # the beginning may be missing
        elif point > next_point:
            if before is not None:
                yield before[0] * frame_s, before[1] * frame_s, _upright(before[2])
            before, next_point = (next_point, point, frame), point
        frame, end_s = following, time_s + duration_s
    if before is not None:
        yield before[0] * frame_s, min(before[1] * frame_s, max(end_s, before[0] * frame_s)), _upright(before[2])
    if frame is not None and (before is None or _points_before(end_s, frame_s) > next_point):
        yield next_point * frame_s, end_s, _upright(frame)


def _points_before(time_s: float, frame_s: float) -> int:
    """How many of 0, frame_s, 2 frame_s … are before a time."""
    return max(0, ceil(time_s / frame_s - TINY))


def _in_time(container: Any, track: Any, frame_s: float) -> Iterator[tuple[float, float, Any]]:
    """The frames that may be wanted, in the order in which they are shown: time, duration, frame."""
    zero_s = float((track.start_time or 0) * track.time_base)
    usual_s = float(1 / track.average_rate) if track.average_rate else 0.04
    time_s = -usual_s
    for frame in _Wanted(container, track, frame_s, zero_s).decoded():
        # the frame's own time base is not there at the end of a stretch
        time_s = time_s + usual_s if frame.pts is None else float(frame.pts * track.time_base) - zero_s
        duration_s = float(frame.duration * track.time_base) if frame.duration else usual_s
        yield max(0.0, time_s), duration_s, frame


class _Wanted:
    """Decodes a track, but for what no wanted picture needs."""

    def __init__(self, container: Any, track: Any, frame_s: float, zero_s: float) -> None:
        self._container, self._track = container, track
        self._frame_s, self._zero_s = frame_s, zero_s
        self._left_out: list[Any] = []  # packets at the end of the last stretch, which the next one may need
        self._is_torn = False  # whether the decoder has missed packets
        codec = self._codec = track.codec_context
        codec.thread_count = 1  # there is a process a processor already
        codec.options = {"max_pixels": str(MAX_FRAME_PIXELS)}

    def decoded(self) -> Iterator[Any]:
        """Frames in the order in which they are shown; all that are on the screen when one is wanted are among them."""
        packets: list[Any] = []
        begins = True  # whether they begin with a keyframe
        for packet in self._packets():
            if packet.is_keyframe and packets:
                yield from self._stretch(packets, packet.pts, begins)
                packets, begins = [], True
            packets.append(packet)
            if len(packets) > MAX_GROUP:
                yield from self._stretch(packets, None, begins=False)
                packets, begins = [], False
        if packets:
            yield from self._stretch(packets, None, begins)
        yield from self._decode(None)

    def _packets(self) -> Iterator[Any]:
        import av

        try:
            for packet in self._container.demux(self._track):
                if packet.size:
                    yield packet
        except (av.error.InvalidDataError, av.error.EOFError):
            return  # the file ends here, be it too early

    def _stretch(self, packets: list[Any], end: int | None, begins: bool) -> Iterator[Any]:
        """Packets from one keyframe to the next, which is shown at `end`."""
        wanted = self._wanted([packet.pts for packet in packets], end) if begins else [True] * len(packets)
        if not any(wanted):
            self._left_out, self._is_torn = [], True
            return
        if self._is_torn or (self._left_out and begins and not _leads(packets)):
            yield from self._decode(None)
            self._codec.flush_buffers()
        else:
            for packet in self._left_out:
                yield from self._decode(packet, is_wanted=False)
        n_needed = len(wanted) - wanted[::-1].index(True)
        self._left_out, self._is_torn = packets[n_needed:], False
        for packet, is_wanted in zip(packets[:n_needed], wanted, strict=False):
            yield from self._decode(packet, is_wanted=is_wanted)

    def _wanted(self, shown_at: list[int | None], end: int | None) -> list[bool]:
        """Of each packet whether its picture is on the screen at one of the times; all where that is not known."""
        if None in shown_at:
            return [True] * len(shown_at)
        in_order = sorted(pts for pts in shown_at if pts is not None)
        following = dict(zip(in_order, [*in_order[1:], end], strict=True))
        return [pts is None or self._is_wanted(pts, following[pts]) for pts in shown_at]

    def _is_wanted(self, pts: int, until: int | None) -> bool:
        return until is None or self._n_before(until) > self._n_before(pts)

    def _n_before(self, pts: int) -> int:
        return _points_before(float(pts * self._track.time_base) - self._zero_s, self._frame_s)

    def _decode(self, packet: Any, *, is_wanted: bool = True) -> Iterator[Any]:
        import av

        self._codec.skip_frame = "DEFAULT" if is_wanted else "NONREF"
        try:
            yield from self._codec.decode(packet)
        except (av.error.InvalidDataError, av.error.EOFError):
            return


def _leads(packets: list[Any]) -> bool:
    """Whether pictures are shown before the keyframe that they follow in the file: those need what is before it."""
    first = packets[0].pts
    return first is None or any(packet.pts is None or packet.pts < first for packet in packets)


def _upright(frame: Any) -> "Image.Image":
    """RGB, turned and mirrored as the display matrix says, to the nearest quarter turn."""
    from av.sidedata.sidedata import SideDataContainer
    from PIL import Image

    pixels = frame.to_ndarray(format="rgb24", threads=1)
    # not frame.side_data, which the frame keeps and which keeps the frame: megabytes that wait for the collector
    side_data = SideDataContainer(frame)  # type: ignore[call-arg]  # its stub lacks the argument
    if (matrix := side_data.get("DISPLAYMATRIX")) is None:
        return Image.fromarray(pixels)
    a, b, _, c, d, *_ = np.frombuffer(bytes(matrix), dtype=np.int32)
    # x' = a x + c y, y' = b x + d y: which of the axes are exchanged, and which then point backwards
    if abs(int(b)) + abs(int(c)) > abs(int(a)) + abs(int(d)):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return Image.fromarray(np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]))


def _heard(container: Any, track: Any, zero_s: float, content: Content) -> Iterator[tuple[float, int, Samples]]:
    """Blocks of samples, each after the second at which its stretch without a gap begins, and its rate."""
    from xmr.engine.media.container import decoded, samples_of

    first_s, ends_s, native_hz = 0.0, -inf, 0
    for frame in decoded(container, track):
        sound.check_channels(len(frame.layout.channels), content)
        time_s = ends_s if frame.time is None else float(frame.time) - zero_s
        if frame.sample_rate != native_hz or time_s - ends_s > GAP_S:
            first_s = max(time_s, ends_s) if native_hz or frame.time is not None else 0.0
            ends_s, native_hz = first_s, frame.sample_rate
        ends_s += frame.samples / max(1, frame.sample_rate)
        yield first_s, native_hz, samples_of(frame)
