/** One person in the grid: picture or initials, name, speaking ring, mute sign. */

import { Participant, RemoteTrackPublication, Track, type TrackPublication } from "livekit-client";
import { el } from "./dom";
import type { Box, Role } from "./layout";

const initials = (name: string): string =>
  name
    .split(/\s+/)
    .map((word) => [...word][0] ?? "")
    .slice(0, 2)
    .join("")
    .toUpperCase() || "?";

const SMALL = 240; // CSS pixels of width, below which letters shrink

/** Keeps one figure per participant and source in step with the call. */
export class Tile {
  readonly element: HTMLElement;
  private readonly picture: HTMLElement;
  private readonly caption: HTMLElement;
  private attached: TrackPublication | undefined;

  constructor(
    private readonly participant: Participant,
    private readonly source: Track.Source,
    private readonly isSelf: boolean,
  ) {
    this.picture = el("div", { class: "picture" });
    this.caption = el("figcaption");
    this.element = el("figure", { class: "tile" }, this.picture, this.caption);
    this.refresh();
  }

  get role(): Role {
    if (this.source === Track.Source.ScreenShare) return "screen";
    return this.isSelf ? "self" : "person";
  }

  moveTo(box: Box): void {
    const style = this.element.style;
    style.transform = `translate(${box.x}px, ${box.y}px)`;
    style.width = `${box.width}px`;
    style.height = `${box.height}px`;
    this.element.classList.toggle("small", box.width < SMALL);
  }

  get name(): string {
    return this.participant.name || this.participant.identity;
  }

  /** Look again at tracks, name, mute and speaking; cheap, so it is called on every event. */
  refresh(): void {
    const publication = this.participant.getTrackPublication(this.source);
    // Frames that somebody encrypts end to end cannot be shown: the page has no keys.
    const sealed = !this.isSelf && !!publication?.isEncrypted;
    const shown = publication?.track && !publication.isMuted && !sealed ? publication : undefined;
    if (shown?.track !== this.attached?.track || shown !== this.attached) {
      this.picture.replaceChildren();
      if (shown?.track) {
        const video = shown.track.attach() as HTMLVideoElement;
        video.setAttribute("aria-hidden", "true");
        video.classList.toggle("mirrored", this.isSelf && this.source === Track.Source.Camera);
        this.picture.append(video);
      } else {
        this.picture.append(el("span", { class: "initials", "aria-hidden": "true" }, initials(this.name)));
      }
      this.attached = shown;
    }
    const muted = !this.participant.isMicrophoneEnabled;
    const screen = this.source === Track.Source.ScreenShare;
    const paused =
      publication instanceof RemoteTrackPublication && publication.track?.streamState === "paused";
    this.caption.textContent =
      (this.isSelf ? `${this.name} (you)` : this.name) +
      (screen ? ", screen" : muted ? ", muted" : "") +
      (sealed ? ", encrypted for others" : paused ? ", video paused" : "");
    this.element.classList.toggle("speaking", this.participant.isSpeaking && !screen);
    this.element.classList.toggle("screen", screen);
    this.element.classList.toggle("self", this.role === "self");
  }

  remove(): void {
    this.attached?.track?.detach();
    this.element.remove();
  }
}
