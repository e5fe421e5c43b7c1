/** The invitation in the page's address, and its exchange for an access token. */

export interface Invitation {
  /** Name of the conference as its owner gave it. */
  title: string;
}

export interface Admission {
  url: string;
  token: string;
  title: string;
}

/** A refusal with a sentence for the person. */
export class Refused extends Error {}

/** As it stands in the address: a token has no letter that needs an escape, and whatever else stands there is refused. */
const invite = (): string => location.pathname.split("/").pop() ?? "";

async function ask<T>(path: string, body: object): Promise<T> {
  let answer: Response;
  try {
    answer = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(10_000),
    });
  } catch {
    throw new Refused("The server cannot be reached. Check your connection and try again.");
  }
  const said = (await answer.json().catch(() => ({}))) as T & { error?: string };
  if (!answer.ok) throw new Refused(said.error ?? "The server did not accept this invitation.");
  return said;
}

export const readInvitation = (): Promise<Invitation> =>
  ask<Invitation>("/api/invitation", { invite: invite() });

export const admit = (name: string): Promise<Admission> =>
  ask<Admission>("/api/join", { invite: invite(), name });
