// What came instead of an answer.

/** What the server, or the way to it, said instead of an answer: `code` and `status` where there are any. */
export class Refused extends Error {
  constructor(message, { status = 0, code = "" } = {}) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** The error in what the server sent, whose status may be all that there is. */
export function refusal(status, content) {
  const { message = "", code = "" } = content?.error ?? {};
  return new Refused(message, { status, code: code ?? "" });
}

/** Take a step on the way to the server: only that fails so; a request that was stopped stays what it is. */
export async function reached(step) {
  try {
    return await step();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (error instanceof TypeError) throw new Refused("", { code: "unreachable" });
    throw error;
  }
}
