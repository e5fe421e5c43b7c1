/** The call itself: grid, toolbar, chat; ends with the sentence that the next page shows. */

import {
  DisconnectReason,
  type LocalTrackPublication,
  type Participant,
  type RemoteTrack,
  type RemoteTrackPublication,
  Room,
  RoomEvent,
  Track,
  type TrackPublication,
} from "livekit-client";
import { Budget } from "./budget";
import { Chat } from "./chat";
import { announce, el, show } from "./dom";
import { Grid } from "./grid";
import { icon, type Sign } from "./icons";
import type { Admission } from "./invitation";
import type { Choice } from "./lobby";

const GOODBYES: Partial<Record<DisconnectReason, string>> = {
  [DisconnectReason.CLIENT_INITIATED]: "You left the call.",
  [DisconnectReason.DUPLICATE_IDENTITY]: "You joined from another place.",
  [DisconnectReason.PARTICIPANT_REMOVED]: "A moderator removed you from the call.",
  [DisconnectReason.ROOM_DELETED]: "The call was ended.",
  [DisconnectReason.ROOM_CLOSED]: "The call was ended.",
  [DisconnectReason.SERVER_SHUTDOWN]: "The server is shutting down.",
};

interface Control {
  element: HTMLButtonElement;
  label: HTMLElement;
}

/** A sign with its word; the word is the accessible name and never says the state. */
function control(sign: Sign, text: string, press: () => unknown): Control {
  const label = el("span", {}, text);
  const element = el("button", { type: "button", class: "control", onclick: () => void press() }, icon(sign), label);
  return { element, label };
}

/** The control bar. Pressed = on; a stroke through the sign says off, so that nobody needs the colour. */
class Toolbar {
  readonly element: HTMLElement;
  private readonly microphone: HTMLButtonElement;
  private readonly camera: HTMLButtonElement;
  private readonly screen: HTMLButtonElement;
  private readonly save: HTMLButtonElement;
  private readonly budget: Budget;

  constructor(
    private readonly room: Room,
    chat: Chat,
  ) {
    const me = room.localParticipant;
    const tried = (what: string, work: () => Promise<unknown>) => async () => {
      await work().catch((why: unknown) => {
        const refused = why instanceof Error && why.name === "NotAllowedError";
        announce(refused ? `${what} was not allowed` : `${what} did not work`);
      });
      this.refresh();
    };
    this.microphone = control(
      "microphone",
      "Microphone",
      tried("Microphone", () => me.setMicrophoneEnabled(!me.isMicrophoneEnabled)),
    ).element;
    this.camera = control(
      "camera",
      "Camera",
      tried("Camera", () => me.setCameraEnabled(!me.isCameraEnabled)),
    ).element;
    this.screen = control(
      "screen",
      "Share screen",
      tried("Screen sharing", () => me.setScreenShareEnabled(!me.isScreenShareEnabled)),
    ).element;
    this.budget = new Budget(room, () => {
      announce("Saving data ended with the connection");
      this.refresh();
    });
    this.save = control(
      "save",
      "Save data",
      tried("Saving data", () => this.budget.toggle()),
    ).element;
    const talk = control("chat", "Chat", () => chat.toggle());
    talk.element.setAttribute("aria-expanded", "false");
    chat.onToggle = (open) => {
      talk.element.setAttribute("aria-expanded", String(open));
      if (!open) talk.element.focus();
    };
    chat.onUnread = (count) => (talk.label.textContent = count ? `Chat (${count} new)` : "Chat");
    const leave = control("leave", "Leave", () => room.disconnect());
    leave.element.classList.add("danger");
    this.element = el(
      "div",
      { class: "toolbar", role: "toolbar", "aria-label": "Call controls" },
      this.microphone,
      this.camera,
      this.screen,
      this.save,
      talk.element,
      leave.element,
    );
    this.refresh();
  }

  refresh(): void {
    const me = this.room.localParticipant;
    this.microphone.setAttribute("aria-pressed", String(me.isMicrophoneEnabled));
    this.camera.setAttribute("aria-pressed", String(me.isCameraEnabled));
    this.screen.setAttribute("aria-pressed", String(me.isScreenShareEnabled));
    this.save.setAttribute("aria-pressed", String(this.budget.isSaving));
  }
}

/** Plays sound; video elements belong to the tiles. */
function playSound(room: Room): HTMLElement {
  const sounds = el("div", { hidden: true });
  room.on(RoomEvent.TrackSubscribed, (track: RemoteTrack, publication: RemoteTrackPublication) => {
    // Sound that somebody encrypts end to end would be noise: the page has no keys.
    if (track.kind === Track.Kind.Audio && !publication.isEncrypted) sounds.append(track.attach());
  });
  room.on(RoomEvent.TrackUnsubscribed, (track: RemoteTrack) => {
    if (track.kind === Track.Kind.Audio) for (const element of track.detach()) element.remove();
  });
  return sounds;
}

/** Joins, shows the call and resolves with a sentence about how it ended. */
export async function call(admission: Admission, choice: Choice): Promise<string> {
  const room = new Room({
    adaptiveStream: true,
    dynacast: true,
    singlePeerConnection: true,
    publishDefaults: { videoCodec: "vp8", red: false },
  });
  const grid = new Grid(room);
  const chat = new Chat(room);
  const toolbar = new Toolbar(room, chat);
  const notice = el("p", { class: "notice", role: "status" });
  const sounds = playSound(room);
  const unblock = el("button", { type: "button", class: "primary", onclick: () => void room.startAudio() }, "Turn sound on");
  unblock.hidden = true;

  const ended = new Promise<string>((resolve) => {
    room.on(RoomEvent.Disconnected, (reason) => {
      resolve(GOODBYES[reason ?? DisconnectReason.UNKNOWN_REASON] ?? "The connection was lost.");
    });
  });
  const refresh = () => {
    grid.refresh();
    toolbar.refresh();
  };
  for (const event of [
    RoomEvent.TrackSubscribed,
    RoomEvent.TrackUnsubscribed,
    RoomEvent.TrackPublished,
    RoomEvent.TrackUnpublished,
    RoomEvent.TrackUnmuted,
    RoomEvent.LocalTrackPublished,
    RoomEvent.LocalTrackUnpublished,
    RoomEvent.ActiveSpeakersChanged,
    RoomEvent.ParticipantNameChanged,
    RoomEvent.TrackStreamStateChanged,
    RoomEvent.Connected,
  ] as const) {
    room.on(event, refresh);
  }
  room.on(RoomEvent.TrackMuted, (_: TrackPublication, who: Participant) => {
    refresh();
    if (who === room.localParticipant) announce("Muted");
  });
  room.on(RoomEvent.ParticipantConnected, (who) => {
    announce(`${who.name || who.identity} joined`);
    refresh();
  });
  room.on(RoomEvent.ParticipantDisconnected, (who) => {
    announce(`${who.name || who.identity} left`);
    refresh();
  });
  room.on(RoomEvent.Reconnecting, () => (notice.textContent = "Reconnecting"));
  room.on(RoomEvent.Reconnected, () => (notice.textContent = ""));
  room.on(RoomEvent.AudioPlaybackStatusChanged, () => (unblock.hidden = room.canPlaybackAudio));

  show(
    el(
      "div",
      { class: "call" },
      el("header", { class: "top" }, el("h1", {}, admission.title), notice),
      el("div", { class: "stage" }, grid.element, chat.panel),
      el("div", { class: "bottom" }, unblock, toolbar.element),
      sounds,
    ),
  );
  await room.connect(admission.url, admission.token);
  const publish = async (track: Choice["camera"] | Choice["microphone"]): Promise<void> => {
    if (!track) return;
    await room.localParticipant.publishTrack(track).catch((): LocalTrackPublication | undefined => {
      announce("A device could not be used");
      return undefined;
    });
  };
  await publish(choice.microphone);
  await publish(choice.camera);
  refresh();
  return ended;
}
