/** The call itself: grid, toolbar, chat; ends with the sentence that the next page shows. */

import {
  DisconnectReason,
  type LocalTrackPublication,
  type Participant,
  type RemoteTrack,
  Room,
  RoomEvent,
  Track,
  type TrackPublication,
} from "livekit-client";
import { Chat } from "./chat";
import { announce, el, show } from "./dom";
import type { Admission } from "./invitation";
import type { Choice } from "./lobby";
import { Tile } from "./tile";

const GOODBYES: Partial<Record<DisconnectReason, string>> = {
  [DisconnectReason.CLIENT_INITIATED]: "You left the call.",
  [DisconnectReason.DUPLICATE_IDENTITY]: "You joined from another place.",
  [DisconnectReason.PARTICIPANT_REMOVED]: "A moderator removed you from the call.",
  [DisconnectReason.ROOM_DELETED]: "The call was ended.",
  [DisconnectReason.ROOM_CLOSED]: "The call was ended.",
  [DisconnectReason.SERVER_SHUTDOWN]: "The server is shutting down.",
};

const SHOWN = [Track.Source.Camera, Track.Source.ScreenShare];

/** Tiles of everybody, by participant and source. */
class Grid {
  readonly element = el("section", { class: "grid", "aria-label": "People in the call" });
  private readonly tiles = new Map<string, Tile>();

  constructor(private readonly room: Room) {}

  refresh(): void {
    const wanted = new Map<string, () => Tile>();
    const people: Participant[] = [this.room.localParticipant, ...this.room.remoteParticipants.values()];
    for (const person of people) {
      for (const source of SHOWN) {
        const isScreen = source === Track.Source.ScreenShare;
        if (isScreen && !person.getTrackPublication(source)?.track) continue;
        const self = person === this.room.localParticipant;
        wanted.set(`${person.sid}/${source}`, () => new Tile(person, source, self));
      }
    }
    for (const [key, tile] of this.tiles) {
      if (!wanted.has(key)) {
        tile.remove();
        this.tiles.delete(key);
      }
    }
    for (const [key, make] of wanted) {
      const known = this.tiles.get(key);
      if (known) known.refresh();
      else {
        const tile = make();
        this.tiles.set(key, tile);
        this.element.append(tile.element);
      }
    }
    this.element.dataset["count"] = String(Math.min(this.tiles.size, 9));
  }
}

function button(label: string, press: () => unknown): HTMLButtonElement {
  return el("button", { type: "button", onclick: () => void press() }, label);
}

/** The control bar. Pressed = on, so that state is readable without colour. */
class Toolbar {
  readonly element: HTMLElement;
  private readonly microphone: HTMLButtonElement;
  private readonly camera: HTMLButtonElement;
  private readonly screen: HTMLButtonElement;

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
    this.microphone = button(
      "Microphone",
      tried("Microphone", () => me.setMicrophoneEnabled(!me.isMicrophoneEnabled)),
    );
    this.camera = button("Camera", tried("Camera", () => me.setCameraEnabled(!me.isCameraEnabled)));
    this.screen = button(
      "Share screen",
      tried("Screen sharing", () => me.setScreenShareEnabled(!me.isScreenShareEnabled)),
    );
    const talk = button("Chat", () => {
      talk.setAttribute("aria-expanded", String(chat.toggle()));
    });
    talk.setAttribute("aria-expanded", "false");
    chat.onUnread = (count) => (talk.textContent = count ? `Chat (${count} new)` : "Chat");
    const leave = button("Leave", () => room.disconnect());
    leave.className = "danger";
    this.element = el(
      "div",
      { class: "toolbar", role: "toolbar", "aria-label": "Call controls" },
      this.microphone,
      this.camera,
      this.screen,
      talk,
      leave,
    );
    this.refresh();
  }

  refresh(): void {
    const me = this.room.localParticipant;
    this.microphone.setAttribute("aria-pressed", String(me.isMicrophoneEnabled));
    this.camera.setAttribute("aria-pressed", String(me.isCameraEnabled));
    this.screen.setAttribute("aria-pressed", String(me.isScreenShareEnabled));
  }
}

/** Plays sound; video elements belong to the tiles. */
function playSound(room: Room): HTMLElement {
  const sounds = el("div", { hidden: true });
  room.on(RoomEvent.TrackSubscribed, (track: RemoteTrack) => {
    if (track.kind === Track.Kind.Audio) sounds.append(track.attach());
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
  const unblock = button("Turn sound on", () => room.startAudio());
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
    el("h1", { class: "title" }, admission.title),
    notice,
    el("div", { class: "stage" }, grid.element, chat.panel),
    unblock,
    toolbar.element,
    sounds,
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
