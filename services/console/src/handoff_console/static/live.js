// Pages that are kept up to date by server-sent events. What the server sends is put in place piece
// by piece: only text and attributes that differ are touched, and elements stay the same ones, so
// that focus, selection and open menus survive an update.
"use strict";

(() => {
  // What the viewer or app.js has set, and the server knows nothing of.
  const LEFT_ALONE = new Set(["open", "tabindex", "aria-describedby"]);
  const OFF = "off the list";

  // A browser opens six connections to a server, and a stream holds one for as long as it is open:
  // a page that nobody sees has none. What a stream tells first, when it is opened again, is all.
  class Stream {
    #url;
    #source = null;
    #listeners = [];
    #ended = new AbortController();

    constructor(url) {
      this.#url = url;
      const { signal } = this.#ended;
      document.addEventListener("visibilitychange", () => this.#follow(), { signal });
      // In a task of its own: who has made it has not said yet where to tell of errors.
      setTimeout(() => this.#follow());
    }

    #follow() {
      if (document.hidden) {
        this.#source?.close();
        this.#source = null;
      } else if (this.#source === null && !this.#ended.signal.aborted) {
        const source = new EventSource(this.#url);
        this.#source = source;
        for (const [name, listener] of this.#listeners) source.addEventListener(name, listener);
        source.onopen = (event) => this.onopen?.(event);
        source.onerror = (event) => {
          // htmx makes another one in its place.
          if (source.readyState === EventSource.CLOSED) this.close();
          this.onerror?.(event);
        };
      }
    }

    get readyState() {
      if (this.#ended.signal.aborted) return EventSource.CLOSED;
      return this.#source?.readyState ?? EventSource.CONNECTING;
    }

    addEventListener(name, listener) {
      this.#listeners.push([name, listener]);
      this.#source?.addEventListener(name, listener);
    }

    removeEventListener(name, listener) {
      this.#listeners = this.#listeners.filter((one) => one[0] !== name || one[1] !== listener);
      this.#source?.removeEventListener(name, listener);
    }

    close() {
      this.#ended.abort();
      this.#source?.close();
    }
  }
  htmx.createEventSource = (url) => new Stream(url);

  function patchAttributes(held, fresh) {
    for (const { name } of [...held.attributes]) {
      if (!fresh.hasAttribute(name) && !LEFT_ALONE.has(name)) held.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
      if (held.getAttribute(name) !== value) held.setAttribute(name, value);
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

  // Rows by their ids. A row with data-order names all that are to stand, in their order. Nothing
  // moves under the eyes of who reads: a row that is to come waits, and one that is to go says so,
  // until the viewer asks for the list as it is now. Where nobody looks, or nothing is there that
  // could be moved, it is put in order at once.
  let order = null;
  let unseen = document.hidden;
  const waiting = new Map();
  const badges = new WeakMap();

  function patchRows(body, fragment) {
    const held = new Map([...body.rows].map((row) => [row.id, row]));
    for (const row of [...fragment.children]) {
      if (row.dataset.order !== undefined) order = row.dataset.order.split(" ");
      else if (held.has(row.id)) patch(held.get(row.id), row);
      else waiting.set(row.id, row);
    }
    if (order === null) return;
    const wanted = new Set(order);
    for (const id of waiting.keys()) if (!wanted.has(id)) waiting.delete(id);
    const reads = [...held.keys()].some((id) => id !== "c-none");
    if (document.hidden || unseen || !reads) settle(body);
    else offer(body, wanted);
    unseen = document.hidden;
  }

  function offer(body, wanted) {
    let gone = 0;
    for (const row of body.rows) {
      const leaves = !wanted.has(row.id);
      if (leaves) gone += 1;
      mark(row, leaves);
    }
    const newer = [...waiting.keys()].filter((id) => id !== "c-none").length;
    const said = [newer ? `${newer} newer` : "", gone ? `${gone} off it` : ""].filter(Boolean);
    const button = document.getElementById("update");
    button.textContent = `Update the list: ${said.join(", ")}`;
    button.classList.toggle("on", said.length > 0);
  }

  // The state of a row that is to go, and back where it is to stay after all.
  function mark(row, leaves) {
    if (row.classList.toggle("off", leaves)) {
      const badge = row.querySelector(".badge");
      if (!badge || badge.textContent === OFF) return;
      badges.set(row, [badge.className, badge.textContent]);
      badge.className = "badge";
      badge.textContent = OFF;
    } else if (badges.has(row)) {
      const badge = row.querySelector(".badge");
      if (badge?.textContent === OFF) [badge.className, badge.textContent] = badges.get(row);
      badges.delete(row);
    }
  }

  function settle(body) {
    if (order === null) return;
    const held = new Map([...body.rows].map((row) => [row.id, row]));
    for (const [id, row] of waiting) held.set(id, row);
    waiting.clear();
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
    offer(body, wanted);
  }

  const live = () => document.querySelector("[hx-swap='patched-rows']");
  document.addEventListener("click", (event) => {
    if (event.target.id !== "update") return;
    live().closest("[tabindex]")?.focus();
    settle(live());
  });
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) return;
    unseen = true;
    if (live()) settle(live());
  });

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
