/** The guest's way: invitation, lobby, call, goodbye. */

import { call } from "./call";
import { el, show } from "./dom";
import { admit, readInvitation } from "./invitation";
import { lobby } from "./lobby";

function farewell(text: string): Promise<void> {
  return new Promise((again) => {
    show(
      el(
        "div",
        { class: "card" },
        el("h1", {}, text),
        el("button", { type: "button", class: "primary", onclick: () => again() }, "Back to the start"),
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
    await farewell(how);
  } catch (why) {
    await farewell(why instanceof Error ? why.message : "Something went wrong.");
  }
}
