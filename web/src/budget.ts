/** "Save data": asks the server to send no more than a small call needs (topic `parley.budget`). */

import { type Room, RoomEvent } from "livekit-client";

const TOPIC = "parley.budget";
/** Sound of everybody and small pictures. */
const SAVED_BPS = 400_000;

export class Budget {
  private saves = false;

  /** `onLost`: the server forgot it with the connection, and could not be asked again. */
  constructor(
    private readonly room: Room,
    onLost: () => void,
  ) {
    // A connection begun afresh knows nothing of it.
    room.on(RoomEvent.Reconnected, () => {
      if (!this.saves) return;
      void this.say().catch(() => {
        this.saves = false;
        onLost();
      });
    });
  }

  get isSaving(): boolean {
    return this.saves;
  }

  async toggle(): Promise<void> {
    this.saves = !this.saves;
    try {
      await this.say();
    } catch (why) {
      this.saves = !this.saves;
      throw why;
    }
  }

  private say(): Promise<void> {
    const message = { type: "budget", bps: this.saves ? SAVED_BPS : null };
    const payload = new TextEncoder().encode(JSON.stringify(message));
    return this.room.localParticipant.publishData(payload, { reliable: true, topic: TOPIC });
  }
}
