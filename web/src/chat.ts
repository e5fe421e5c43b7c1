/** Text of the conference: what the bound rooms say and what is said here (LiveKit text streams, `lk.chat`). */

import type { Room } from "livekit-client";
import { announce, el } from "./dom";

const TOPIC = "lk.chat";
const MAX_LINES = 500; // older lines leave the page
const MAX_TEXT = 10_000; // characters of one line

export class Chat {
  readonly panel: HTMLElement;
  private readonly lines: HTMLOListElement;
  private readonly input: HTMLInputElement;
  onUnread: (count: number) => void = () => undefined;
  onToggle: (open: boolean) => void = () => undefined;
  private unread = 0;

  constructor(private readonly room: Room) {
    this.lines = el("ol", { class: "lines", "aria-label": "Messages", tabindex: "0" });
    this.input = el("input", {
      "aria-label": "Message",
      maxlength: String(MAX_TEXT),
      autocomplete: "off",
      placeholder: "Write to everybody",
    });
    const form = el(
      "form",
      { class: "say" },
      this.input,
      el("button", { type: "submit" }, "Send"),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.send();
    });
    this.panel = el("aside", { class: "chat", "aria-label": "Chat", hidden: true }, this.lines, form);
    this.panel.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.toggle();
    });
    room.registerTextStreamHandler(TOPIC, async (reader, from) => {
      const text = await reader.readAll();
      const name =
        reader.info.attributes?.["parley.name"] ??
        room.getParticipantByIdentity(from.identity)?.name ??
        from.identity;
      this.add(name, text);
    });
  }

  get open(): boolean {
    return !this.panel.hidden;
  }

  /** Opens with the focus on the line to write, closes with it where it came from. */
  toggle(): void {
    this.panel.hidden = !this.panel.hidden;
    this.onToggle(this.open);
    if (this.open) {
      this.unread = 0;
      this.onUnread(0);
      this.input.focus();
    }
  }

  private async send(): Promise<void> {
    const text = this.input.value.trim();
    if (!text) return;
    this.input.value = "";
    try {
      await this.room.localParticipant.sendText(text, { topic: TOPIC });
      this.add("You", text);
    } catch {
      this.input.value = text;
      announce("The message was not sent");
    }
  }

  private add(name: string, text: string): void {
    this.lines.append(el("li", {}, el("b", {}, name), " ", text));
    while (this.lines.childElementCount > MAX_LINES) this.lines.firstElementChild?.remove();
    this.lines.scrollTop = this.lines.scrollHeight;
    if (!this.open) {
      this.unread += 1;
      this.onUnread(this.unread);
    }
    if (name !== "You") announce(`${name}: ${text}`);
  }
}
