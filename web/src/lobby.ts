/** Before the call: name, a look at oneself, choice of devices. */

import { createLocalTracks, LocalAudioTrack, LocalVideoTrack, Room } from "livekit-client";
import { announce, el, show } from "./dom";
import { icon, type Sign } from "./icons";

export interface Choice {
  name: string;
  microphone: LocalAudioTrack | null;
  camera: LocalVideoTrack | null;
}

const NAME_KEY = "parley.name";
const MAX_NAME = 64; // characters; the server cuts there too

async function tryTrack<T>(want: { audio?: boolean; video?: boolean }): Promise<T | null> {
  try {
    const [track] = await createLocalTracks({
      audio: want.audio ?? false,
      video: want.video ? { resolution: { width: 1280, height: 720 } } : false,
    });
    return (track ?? null) as T | null;
  } catch {
    return null;
  }
}

/** Options of one kind of device; choosing one switches the track. */
async function deviceSelect(
  label: string,
  kind: MediaDeviceKind,
  choose: (id: string) => Promise<unknown>,
): Promise<HTMLElement> {
  const devices = await Room.getLocalDevices(kind).catch(() => []);
  const select = el(
    "select",
    { onchange: () => void choose(select.value).catch(() => announce(`${label} cannot be used`)) },
    ...devices.map((d, i) => el("option", { value: d.deviceId }, d.label || `${label} ${i + 1}`)),
  );
  return el("label", { class: "field" }, label, select);
}

/** A switch that begins on. */
function toggle(sign: Sign, label: string, change: (on: boolean) => void): HTMLButtonElement {
  let on = true;
  const button = el(
    "button",
    {
      type: "button",
      class: "control",
      "aria-pressed": "true",
      onclick: () => {
        on = !on;
        button.setAttribute("aria-pressed", String(on));
        change(on);
      },
    },
    icon(sign),
    el("span", {}, label),
  );
  return button;
}

/** Shows the lobby and resolves when the person presses Join. */
export async function lobby(title: string): Promise<Choice> {
  const preview = el("video", { class: "preview", "aria-label": "Your camera", playsinline: true });
  preview.muted = true;
  preview.autoplay = true;
  const switches = el("div", { class: "switches" });
  const devices = el("div", { class: "devices" });
  const name = el("input", {
    id: "name",
    name: "name",
    required: true,
    maxlength: String(MAX_NAME),
    autocomplete: "nickname",
    value: localStorage.getItem(NAME_KEY) ?? "",
  });
  const join = el("button", { type: "submit", class: "primary" }, "Join the call");
  const note = el("p", { class: "note", role: "status" }, "Asking for your microphone and camera");
  const form = el(
    "form",
    { class: "card lobby" },
    el("h1", {}, title || "Join the call"),
    el("div", { class: "look" }, el("div", { class: "frame" }, preview), note, switches),
    el("div", { class: "choices" }, el("label", { class: "field", for: "name" }, "Your name", name), devices, join),
  );
  show(form);

  let microphone: LocalAudioTrack | null = null;
  let camera: LocalVideoTrack | null = null;
  let sendSound = true;
  let sendPicture = true;
  const ready = (async () => {
    microphone = await tryTrack<LocalAudioTrack>({ audio: true });
    camera = await tryTrack<LocalVideoTrack>({ video: true });
    camera?.attach(preview);
    note.textContent =
      microphone && camera
        ? "This is how others will see you."
        : `${microphone ? "" : "No microphone. "}${camera ? "" : "No camera. "}You can join all the same.`;
    const choices: HTMLElement[] = [];
    if (microphone) {
      const track: LocalAudioTrack = microphone;
      choices.push(await deviceSelect("Microphone", "audioinput", (id) => track.setDeviceId(id)));
      switches.append(toggle("microphone", "Microphone on", (on) => (sendSound = on)));
    }
    if (camera) {
      const track: LocalVideoTrack = camera;
      choices.push(await deviceSelect("Camera", "videoinput", (id) => track.setDeviceId(id)));
      switches.append(
        toggle("camera", "Camera on", (on) => {
          sendPicture = on;
          preview.hidden = !on;
        }),
      );
    }
    devices.replaceChildren(...choices);
  })();

  await new Promise<void>((resolve) => {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (name.value.trim()) resolve();
    });
  });
  join.disabled = true;
  await ready;
  localStorage.setItem(NAME_KEY, name.value.trim());
  const keep = <T extends LocalAudioTrack | LocalVideoTrack>(track: T | null, wanted: boolean) => {
    if (track && !wanted) track.stop();
    return wanted ? track : null;
  };
  return {
    name: name.value.trim(),
    microphone: keep(microphone as LocalAudioTrack | null, sendSound),
    camera: keep(camera as LocalVideoTrack | null, sendPicture),
  };
}
