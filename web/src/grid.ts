/** The stage: tiles of everybody, placed by `layout`. Tiles never move in the document: that would stop their video. */

import { type Participant, type Room, Track } from "livekit-client";
import { el } from "./dom";
import { arrange } from "./layout";
import { Tile } from "./tile";

const SHOWN = [Track.Source.Camera, Track.Source.ScreenShare];

export class Grid {
  readonly element = el("section", { class: "grid", "aria-label": "People in the call" });
  private readonly tiles = new Map<string, Tile>();

  constructor(private readonly room: Room) {
    new ResizeObserver(() => this.place()).observe(this.element);
  }

  /** Look again at who is there and what they show. */
  refresh(): void {
    const wanted = new Map<string, () => Tile>();
    const me = this.room.localParticipant;
    const people: Participant[] = [...this.room.remoteParticipants.values(), me];
    for (const person of people) {
      for (const source of SHOWN) {
        const isScreen = source === Track.Source.ScreenShare;
        if (isScreen && !person.getTrackPublication(source)?.track) continue;
        wanted.set(`${person.sid}/${source}`, () => new Tile(person, source, person === me));
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
    this.place();
  }

  private place(): void {
    const { clientWidth, clientHeight } = this.element;
    if (!clientWidth || !clientHeight) return;
    const tiles = [...this.tiles.values()];
    const boxes = arrange(
      tiles.map((tile) => tile.role),
      clientWidth,
      clientHeight,
    );
    tiles.forEach((tile, index) => {
      const box = boxes[index];
      if (box) tile.moveTo(box);
    });
    // What scrolls must be reachable by keyboard.
    if (this.element.scrollHeight > clientHeight + 1) this.element.tabIndex = 0;
    else this.element.removeAttribute("tabindex");
  }
}
