<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis styleCategories="Symbology" version="3.22.16-Białowieża">
  <renderer-v2 graduatedMethod="GraduatedColor" attr="coalesce(&quot;score&quot;, -1)" type="graduatedSymbol">
    <ranges>
      <range render="true" symbol="5" lower="-1.000000000000000" label="no score" upper="-1.000000000000000" />
      <range render="true" symbol="0" lower="0.000000000000000" label="0 – 0.4 (doubtful)" upper="0.400000000000000" />
      <range render="true" symbol="1" lower="0.400000000000000" label="0.4 – 0.55" upper="0.550000000000000" />
      <range render="true" symbol="2" lower="0.550000000000000" label="0.55 – 0.75" upper="0.750000000000000" />
      <range render="true" symbol="3" lower="0.750000000000000" label="0.75 – 0.9" upper="0.900000000000000" />
      <range render="true" symbol="4" lower="0.900000000000000" label="0.9 – 1 (sure)" upper="1.000000000000000" />
    </ranges>
    <symbols>
      <symbol name="0" type="fill" alpha="1">
        <layer class="SimpleFill" enabled="1">
          <Option type="Map">
            <Option name="color" type="QString" value="240,59,32,90" />
            <Option name="outline_color" type="QString" value="240,59,32,255" />
            <Option name="outline_width" type="QString" value="0.4" />
            <Option name="style" type="QString" value="solid" />
          </Option>
        </layer>
      </symbol>
      <symbol name="1" type="fill" alpha="1">
        <layer class="SimpleFill" enabled="1">
          <Option type="Map">
            <Option name="color" type="QString" value="254,178,76,90" />
            <Option name="outline_color" type="QString" value="254,178,76,255" />
            <Option name="outline_width" type="QString" value="0.4" />
            <Option name="style" type="QString" value="solid" />
          </Option>
        </layer>
      </symbol>
      <symbol name="2" type="fill" alpha="1">
        <layer class="SimpleFill" enabled="1">
          <Option type="Map">
            <Option name="color" type="QString" value="255,223,58,90" />
            <Option name="outline_color" type="QString" value="255,223,58,255" />
            <Option name="outline_width" type="QString" value="0.4" />
            <Option name="style" type="QString" value="solid" />
          </Option>
        </layer>
      </symbol>
      <symbol name="3" type="fill" alpha="1">
        <layer class="SimpleFill" enabled="1">
          <Option type="Map">
            <Option name="color" type="QString" value="65,182,228,90" />
            <Option name="outline_color" type="QString" value="65,182,228,255" />
            <Option name="outline_width" type="QString" value="0.4" />
            <Option name="style" type="QString" value="solid" />
          </Option>
        </layer>
      </symbol>
      <symbol name="4" type="fill" alpha="1">
        <layer class="SimpleFill" enabled="1">
          <Option type="Map">
            <Option name="color" type="QString" value="33,102,255,90" />
            <Option name="outline_color" type="QString" value="33,102,255,255" />
            <Option name="outline_width" type="QString" value="0.4" />
            <Option name="style" type="QString" value="solid" />
          </Option>
        </layer>
      </symbol>
      <symbol name="5" type="fill" alpha="1">
        <layer class="SimpleFill" enabled="1">
          <Option type="Map">
            <Option name="color" type="QString" value="154,160,166,90" />
            <Option name="outline_color" type="QString" value="154,160,166,255" />
            <Option name="outline_width" type="QString" value="0.4" />
            <Option name="style" type="QString" value="solid" />
          </Option>
        </layer>
      </symbol>
    </symbols>
  </renderer-v2>
  <blendMode>0</blendMode>
  <featureBlendMode>0</featureBlendMode>
  <layerGeometryType>2</layerGeometryType>
</qgis>
