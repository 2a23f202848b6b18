// Pages that are kept up to date by server-sent events. What the server sends is put in place piece
// by piece: only text and attributes that differ are touched, and elements stay the same ones, so
// that focus, selection and open menus survive an update.
"use strict";

(() => {
  // What the viewer or app.js has set, and the server knows nothing of.
  const LEFT_ALONE = new Set(["open", "title"]);

  function patchAttributes(held, fresh) {
    for (const { name } of [...held.attributes]) {
      if (!fresh.hasAttribute(name) && !LEFT_ALONE.has(name)) held.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
      if (held.getAttribute(name) === value) continue;
      held.setAttribute(name, value);
      // app.js writes the viewer's own time there, once.
      if (name === "datetime") held.removeAttribute("title");
    }
  }

  function patch(held, fresh) {
    if (held.nodeType !== fresh.nodeType || held.nodeName !== fresh.nodeName) {
      held.replaceWith(fresh);
    } else if (held.nodeType !== Node.ELEMENT_NODE) {
      if (held.data !== fresh.data) held.data = fresh.data;
    } else {
      patchAttributes(held, fresh);
      patchChildren(held, fresh);
    }
  }

  function patchChildren(held, fresh) {
    const wanted = [...fresh.childNodes];
    const there = [...held.childNodes];
    wanted.forEach((node, index) => {
      if (index < there.length) patch(there[index], node);
      else held.append(node);
    });
    for (const node of there.slice(wanted.length)) node.remove();
  }

  // Rows by their ids. A row with data-order names all that are to stand, in their order.
  function patchRows(body, fragment) {
    const held = new Map([...body.rows].map((row) => [row.id, row]));
    let order = null;
    for (const row of [...fragment.children]) {
      if (row.dataset.order !== undefined) order = row.dataset.order.split(" ");
      else if (held.has(row.id)) patch(held.get(row.id), row);
      else held.set(row.id, row);
    }
    if (order === null) return;
    const wanted = new Set(order);
    for (const [id, row] of held) {
      if (wanted.has(id) || !row.isConnected) continue;
      // The row that had the focus is gone: the table keeps it.
      if (row.contains(document.activeElement)) body.closest("[tabindex]")?.focus();
      row.remove();
    }
    let place = body.firstElementChild;
    for (const id of order) {
      const row = held.get(id);
      if (row === undefined) continue;
      if (row === place) place = place.nextElementSibling;
      else body.insertBefore(row, place);
    }
  }

  htmx.defineExtension("patched", {
    isInlineSwap: () => false,
    handleSwap(style, target, fragment) {
      if (style === "patched-rows") patchRows(target, fragment);
      else if (style === "patched") patchChildren(target, fragment);
      else return false;
      return [];
    },
  });

  // The server itself cannot be reached, or has no place for one more viewer.
  const status = () => document.querySelector("[sse-swap='status']");
  document.addEventListener("htmx:sseError", () => {
    const element = status();
    if (element) element.textContent = "Not live just now: trying again.";
  });
})();
