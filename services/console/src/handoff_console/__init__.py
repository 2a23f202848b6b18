"""The web interface: pages over the three REST APIs, reached through `handoff_client`.

It owns no data and no rule: what may be done, what it costs and what is refused are the APIs'
answers. See docs/console.md.
"""
