"""The async API behind the calls of the plain one, so that the one contract holds for both."""

import asyncio
import inspect
import threading

import encvec_store as ev
from encvec_store import aio, low_level
from encvec_store.runtime import concurrency


class Loop:
    """An event loop in a thread of its own, which other threads give coroutines to."""

    def __init__(self):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine):
        """Wait for a coroutine: in our thread, or, called by a walk in the middle of another call, in the loop."""

        async def guarded():  # KeyboardInterrupt would stop the loop
            try:
                return await coroutine, None
            except BaseException as error:
                return None, error

        if concurrency.in_walk():
            result, error = concurrency.wait_for(guarded())
        else:
            assert threading.current_thread() is not self._thread
            result, error = asyncio.run_coroutine_threadsafe(guarded(), self._loop).result(250)
        if error is not None:
            raise error
        return Synced(result, self) if isinstance(result, aio.AsyncStore | aio.AsyncCollection) else result

    def connect(self, url, **given):
        async def connect():
            return await ev.aio.connect(url, **given)

        return self.run(connect())

    def close(self):
        async def finish():
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            await asyncio.get_running_loop().shutdown_default_executor()

        self.run(finish())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()


def asked(things, ask):
    """Ask the records of a collection something: in the event loop, if it lives in one."""
    loop, records = getattr(things, "_loop", None), low_level.records(things)
    return ask(records) if loop is None else loop.run(concurrency.spawn(ask, records))


class Synced:
    """An AsyncStore or AsyncCollection whose coroutines are run to their end."""

    def __init__(self, of, loop):
        self._async, self._loop = of, loop

    def __getattr__(self, name):
        if name.startswith("_"):  # the tests look inside: the walks are those of the plain API
            return getattr(self._async._of, name)
        found = getattr(self._async, name)
        if name == "scroll":
            return lambda *args, **given: self._iterate(found(*args, **given))
        if inspect.iscoroutinefunction(found):
            return lambda *args, **given: self._loop.run(found(*args, **given))
        return found

    def _iterate(self, items):
        async def following():
            return await anext(items, self)

        while (item := self._loop.run(following())) is not self:
            yield item

    def __enter__(self):
        self._loop.run(self._async.__aenter__())
        return self

    def __exit__(self, *error):
        self._loop.run(self._async.__aexit__(*error))

    def __len__(self):  # a coroutine cannot answer len and in: `count` and `get` do
        return self.count()

    def __contains__(self, id):
        return bool(self.get([id]))

    def __bool__(self):
        return True

    def __repr__(self):
        return repr(self._async)
