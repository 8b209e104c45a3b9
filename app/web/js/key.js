/* The API key of a deployment that asks for one: kept in this tab alone, until it is closed. */

import { apiKey, setApiKey } from "./api.js";
import { h } from "./dom.js";

/** Ask, and call `done` with a new key or none; `why` says what is wrong with the one that there is. */
export function askForKey(done, why = "") {
  if (document.querySelector("dialog[open]")) return;
  // A header can carry no other characters: the browser would not send the request.
  const input = h("input", { id: "api-key", type: "password", autocomplete: "off", value: apiKey(), spellcheck: false, pattern: "\\s*[!-~]*\\s*", title: "A key has no spaces and no characters beyond ASCII: copy it again" });
  const dialog = h(
    "dialog",
    { "aria-labelledby": "key-title" },
    h(
      "form",
      { method: "dialog" },
      h("h2", { id: "key-title" }, "API key"),
      h("p", { class: "soft" }, "The key is sent with every request of this tab and forgotten when the tab is closed. A service without keys needs none."),
      why && apiKey() ? h("p", { class: "failure", role: "alert" }, why) : null,
      h("label", { for: "api-key" }, "Key"),
      input,
      h("p", { class: "actions" }, h("button", { value: "use", class: "main" }, "Use"), h("button", { value: "forget", formNoValidate: true }, "Forget"), h("button", { value: "" , formNoValidate: true }, "Close")),
    ),
  );
  dialog.addEventListener("close", () => {
    if (dialog.returnValue === "use") setApiKey(input.value.trim());
    if (dialog.returnValue === "forget") setApiKey("");
    if (dialog.returnValue) done();
    dialog.remove();
  });
  document.body.append(dialog);
  dialog.showModal();
}
