import { lazy, Suspense, useEffect, useState } from 'react';
import { LiveRegions } from '../accessibility/LiveRegions';
import { PageFrame } from '../appearance/PageFrame';
import { Waiting } from '../appearance/Waiting';
import { JoinPage } from '../join/JoinPage';
import { LeftPage } from '../left/LeftPage';
import { takeLastDeparture } from '../left/departure';
import { usePreferences } from '../preferences/preferences';
import { useWords } from '../words/words';
import { loadDirectoryPages } from './load-pages';
import { MeetingFlow } from './MeetingFlow';
import { navigate, routeOf, usePathname } from './route';

const DirectoryPages = lazy(loadDirectoryPages);

export function App() {
  const words = useWords();
  const { largeType } = usePreferences();
  const route = routeOf(usePathname());

  useEffect(() => {
    document.documentElement.lang = words.languageTag;
  }, [words]);
  useEffect(() => {
    document.documentElement.toggleAttribute('data-large-type', largeType);
  }, [largeType]);
  useEffect(() => {
    if (route.page === 'join' && location.pathname !== '/join') navigate('/join', 'replace');
  }, [route.page]);

  return (
    <>
      {route.page === 'join' && <JoinPage />}
      {route.page === 'meeting' && <MeetingFlow key={route.code} code={route.code} />}
      {route.page === 'left' && <LastLeft />}
      {route.page === 'directory' && (
        <Suspense
          fallback={
            <PageFrame>
              <Waiting text={words.opening} longText={words.openingLong} />
            </PageFrame>
          }
        >
          <DirectoryPages />
        </Suspense>
      )}
      <LiveRegions />
    </>
  );
}

/** /left opened by itself (a reload, or back and forward): shows how the last meeting of this tab ended. */
function LastLeft() {
  const [departure] = useState(takeLastDeparture);
  const rejoin = departure === null ? null : () => navigate(`/m/${departure.code}`, 'replace');
  return <LeftPage departure={departure} onRejoin={rejoin} />;
}
