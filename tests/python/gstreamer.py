"""An encoder (WHIP) or a player (WHEP) made of GStreamer's webrtcbin, as a program of its own: GStreamer's modules come with
the system's Python.

    gstreamer.py encode <url> <token> <codec> <picture, 640x360 I420> <hertz>
    gstreamer.py play <url> <token> <folder>

A player writes what it decodes: `pictures`, each 160x90 in grey, and `sound`, 48 kHz in 16 bits. Each ends, and its session
with it, when its input does.
"""

import json
import sys
import urllib.error
import urllib.request

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402

ENCODERS = {
    "vp8": "vp8enc deadline=1 keyframe-max-dist=60 target-bitrate=500000 ! rtpvp8pay pt=96",
    "vp9": "vp9enc deadline=1 cpu-used=8 keyframe-max-dist=60 target-bitrate=500000 ! rtpvp9pay pt=96",
    "h264": (
        "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=60 bitrate=500"
        " ! video/x-h264,profile=constrained-baseline ! rtph264pay pt=96 config-interval=-1 aggregate-mode=zero-latency"
    ),
}

WATCHED = [
    "application/x-rtp,media=video,encoding-name=VP8,payload=96,clock-rate=90000",
    "application/x-rtp,media=audio,encoding-name=OPUS,payload=111,clock-rate=48000",
]


def say(**what):
    """Tells whoever started this."""
    print(json.dumps(what), flush=True)


class Client:
    def __init__(self, url, token, pipeline):
        self.url, self.token, self.location = url, token, None
        self.pipeline = pipeline
        self.webrtc = pipeline.get_by_name("webrtc")
        self.loop = GLib.MainLoop()
        self.is_offered = False
        self.kept = []
        self.webrtc.connect("notify::ice-gathering-state", lambda *_: GLib.idle_add(self.offer))
        self.webrtc.connect("notify::connection-state", lambda *_: GLib.idle_add(self.tell_state))
        bus = pipeline.get_bus()
        bus.add_signal_watch()
        bus.connect("message::error", lambda _, message: self.fail(message.parse_error()[0].message))
        GLib.io_add_watch(sys.stdin.fileno(), GLib.IO_IN | GLib.IO_HUP, lambda *_: self.end())

    def run(self):
        self.pipeline.set_state(Gst.State.PLAYING)
        self.loop.run()
        self.pipeline.set_state(Gst.State.NULL)

    def begin(self):
        """Makes the offer; gathering begins with it."""

        def offered(promise):
            promise.wait()
            reply = promise.get_reply()
            self.set("local", GstWebRTC.WebRTCSDPType.OFFER, reply.get_value("offer").sdp.as_text())

        self.webrtc.emit("create-offer", None, Gst.Promise.new_with_change_func(offered))

    def offer(self):
        """Sends the offer when all its candidates are known, and takes the answer."""
        state = self.webrtc.get_property("ice-gathering-state")
        if self.is_offered or state != GstWebRTC.WebRTCICEGatheringState.COMPLETE:
            return
        self.is_offered = True
        sdp = self.webrtc.get_property("local-description").sdp.as_text()
        try:
            with self.request("POST", self.url, sdp.encode()) as answer:
                self.location = urllib.request.urljoin(self.url, answer.headers["Location"])
                text = answer.read().decode()
        except urllib.error.HTTPError as error:
            self.fail(f"{error.code}: {error.read().decode()}")
            return
        self.set("remote", GstWebRTC.WebRTCSDPType.ANSWER, text)

    def set(self, side, kind, text):
        """Sets a description."""
        # Each refers to the one before it, so each must live.
        parsed = GstSdp.SDPMessage.new_from_text(text)[1]
        description = GstWebRTC.WebRTCSessionDescription.new(kind, parsed)
        promise = Gst.Promise.new()
        self.kept += [parsed, description, promise]
        self.webrtc.emit(f"set-{side}-description", description, promise)

    def request(self, method, url, body=None):
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/sdp"}
        return urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method), timeout=20)

    def tell_state(self):
        say(state=self.webrtc.get_property("connection-state").value_nick)

    def fail(self, why):
        say(error=why)
        self.loop.quit()

    def end(self):
        if self.location:
            with self.request("DELETE", self.location) as answer:
                say(ended=answer.status)
        self.loop.quit()


def encode(url, token, codec, picture, hertz):
    pipeline = Gst.parse_launch(
        "webrtcbin name=webrtc bundle-policy=max-bundle "
        f"filesrc location={picture} blocksize=345600 ! rawvideoparse format=i420 width=640 height=360 framerate=15/1"
        f" ! imagefreeze is-live=true ! video/x-raw,framerate=15/1 ! queue ! {ENCODERS[codec]} ! queue ! webrtc. "
        f"audiotestsrc is-live=true freq={hertz} volume=0.4 ! audio/x-raw,rate=48000,channels=1 ! queue"
        " ! opusenc ! rtpopuspay pt=111 ! queue ! webrtc."
    )
    client = Client(url, token, pipeline)
    for at in range(2):
        transceiver = client.webrtc.emit("get-transceiver", at)
        transceiver.set_property("direction", GstWebRTC.WebRTCRTPTransceiverDirection.SENDONLY)
    client.webrtc.connect("on-negotiation-needed", lambda _: client.begin())
    client.run()


def play(url, token, folder):
    pipeline = Gst.parse_launch("webrtcbin name=webrtc bundle-policy=max-bundle")
    if not isinstance(pipeline, Gst.Pipeline):
        made = Gst.Pipeline.new()
        made.add(pipeline)
        pipeline = made
    client = Client(url, token, pipeline)
    kept = {
        "video": "videoconvert ! videoscale ! video/x-raw,format=GRAY8,width=160,height=90"
        f" ! filesink sync=false buffer-mode=unbuffered location={folder}/pictures",
        "audio": "audioconvert ! audioresample ! audio/x-raw,format=S16LE,rate=48000,channels=1"
        f" ! filesink sync=false buffer-mode=unbuffered location={folder}/sound",
    }

    def add(element, pad):
        pipeline.add(element)
        element.sync_state_with_parent()
        pad.link(element.get_static_pad("sink"))

    def decoded(_, pad):
        kind = pad.get_current_caps().to_string().split("/")[0]
        add(Gst.parse_bin_from_description(f"queue ! {kept[kind]}", True), pad)

    def came(_, pad):
        decode = Gst.ElementFactory.make("decodebin")
        decode.connect("pad-added", decoded)
        add(decode, pad)

    client.webrtc.connect("pad-added", came)
    client.webrtc.connect("on-negotiation-needed", lambda _: client.begin())
    for caps in WATCHED:
        direction = GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY
        client.webrtc.emit("add-transceiver", direction, Gst.Caps.from_string(caps))
    client.run()


if __name__ == "__main__":
    Gst.init(None)
    {"encode": encode, "play": play}[sys.argv[1]](*sys.argv[2:])
