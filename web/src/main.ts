/** The guest's way: invitation, lobby, call, goodbye. */

import { call } from "./call";
import { el, show } from "./dom";
import { admit, readInvitation, Refused } from "./invitation";
import { lobby } from "./lobby";

function farewell(text: string, next: string): Promise<void> {
  return new Promise((again) => {
    show(
      el(
        "div",
        { class: "card" },
        el("h1", {}, text),
        el("button", { type: "button", class: "primary", onclick: () => again() }, next),
      ),
    );
  });
}

for (;;) {
  try {
    const invitation = await readInvitation();
    document.title = invitation.title ? `${invitation.title} - Parley` : "Parley";
    const choice = await lobby(invitation.title);
    const admission = await admit(choice.name);
    const how = await call(admission, choice);
    choice.microphone?.stop();
    choice.camera?.stop();
    await farewell(how, "Join again");
  } catch (why) {
    if (!(why instanceof Refused)) console.warn(why);
    await farewell(why instanceof Refused ? why.message : "The call could not be joined.", "Try again");
  }
}
